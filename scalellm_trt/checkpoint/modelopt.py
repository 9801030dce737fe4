"""A Hugging Face model and token samples in, a calibrated checkpoint out; the calibration is NVIDIA ModelOpt's.

Only the tensors that calibration made are ModelOpt's: the others are copied from the model, and config.json is ours
(ModelOpt's differs with and without tensorrt_llm installed, and pads the vocabulary to a multiple of 64).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import shutil
import sys
import warnings
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts.manifest import CALIBRATION_RECORD
from scalellm_trt.checkpoint.config import NATIVE_ALGOS, CheckpointConfig
from scalellm_trt.checkpoint.layerwise import best_device, quantized_layers
from scalellm_trt.checkpoint.layout import kv_scale_name, layer_prefix, linears, tensor_layouts
from scalellm_trt.checkpoint.modelopt_rules import rules_for
from scalellm_trt.checkpoint.source import SourceWeights
from scalellm_trt.checkpoint.streaming import StoredTensor, convert_weights
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.errors import ScaleLLMError, StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scalellm_trt.checkpoint.calibration import CalibrationSamples
    from scalellm_trt.model_spec import Architecture

    Progress = Callable[[str, float], None]

SCRATCH: Final = "modelopt"

_PACKAGES: Final = ("torch", "transformers", "nvidia-modelopt")
# From this version on `quant_cfg` is a list of rules; before, it was a dictionary.
_OLDEST_MODELOPT: Final = (0, 44)
_DECODER_TYPES: Final[dict[Architecture, str]] = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "MixtralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen",
    "Qwen3ForCausalLM": "qwen",
}
_CALIBRATION_SHARE: Final = 0.9
_NUM_TAIL_LINES: Final = 10


def tool_versions() -> dict[str, str]:
    """Return name → version of the libraries that decide the result; imports none of them.

    Raises:
        ToolchainError: one is missing, or ModelOpt is too old.
    """
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            message = f"calibration needs {name}, which is not installed"
            raise ToolchainError(message, hint="pip install 'scalellm-trt[quantize]'") from error
    found = versions["nvidia-modelopt"]
    if tuple(int(part) for part in found.split(".")[:2]) < _OLDEST_MODELOPT:
        message = f"calibration needs nvidia-modelopt 0.44 or newer, found {found}"
        raise ToolchainError(message, hint="pip install 'scalellm-trt[quantize]'")
    return versions


def quantize(
    model_dir: Path,
    config: CheckpointConfig,
    samples: CalibrationSamples,
    out_dir: Path,
    progress: Progress,
    *,
    device: str | None = None,
) -> None:
    """Calibrate, quantize and write the checkpoint into the existing directory `out_dir`.

    Weights in a native format (see `config.NATIVE_ALGOS`) are not touched: only the scales of the KV cache are found.
    Beside the files of every checkpoint there is `CALIBRATION_RECORD`: which samples were used, and the versions of the
    libraries.

    Memory: one decoder layer and the activations of a batch on the device, the same on the host; hidden states are on
    disk (see `layerwise`).

    Args:
        model_dir: a Hugging Face directory with safetensors.
        config: from `formats.config_for`, with the spec of this very model.
        samples: from `calibration.draw_samples`.
        out_dir: an empty directory on a disk with room for the checkpoint twice.
        progress: called before every batch of each layer, and while writing.
        device: `cuda` or `cpu`; None takes a GPU where there is one.

    Raises:
        ToolchainError: torch, transformers or ModelOpt is missing or too old.
        ArtefactError: the model's files are incomplete or damaged.
        UnsupportedError: the model has parts that we would have to drop.
        StageError: ModelOpt failed, or the disk is full.
    """
    tool_versions()
    weights = SourceWeights(model_dir)
    weights.check(config.spec)
    scratch = out_dir / SCRATCH
    scratch.mkdir()
    with quiet(progress) as report:
        report("loading ModelOpt", 0.0)

        def calibration_progress(activity: str, share: float) -> None:
            report(activity, _CALIBRATION_SHARE * share)

        calibrated = _calibrated_tensors(
            weights, config, samples, scratch, calibration_progress, device or best_device()
        )

    def write_progress(activity: str, share: float) -> None:
        progress(activity, _CALIBRATION_SHARE + (1 - _CALIBRATION_SHARE) * share)

    convert_weights(model_dir, config, out_dir, write_progress, calibrated)
    write_record(samples, out_dir)
    shutil.rmtree(scratch)


def write_record(samples: CalibrationSamples, out_dir: Path) -> None:
    """Write which samples and libraries made a checkpoint."""
    record = {**samples.describe(), **tool_versions()}
    (out_dir / CALIBRATION_RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _calibrated_tensors(
    weights: SourceWeights,
    config: CheckpointConfig,
    samples: CalibrationSamples,
    scratch: Path,
    progress: Progress,
    device: str,
) -> dict[str, StoredTensor]:
    """Let ModelOpt quantize and export layer by layer; return where each tensor of the whole model then lies."""
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint

    layers = quantized_layers(
        weights,
        config.spec,
        rules_for(config.quant_algo, config.kv_cache_quant_algo, config.group_size),
        samples,
        scratch,
        progress,
        dtype=config.dtype,
        device=device,
    )
    calibrated = {}
    for layer, model in layers:
        export_dir = scratch / f"layer-{layer}"
        with torch.inference_mode():
            export_tensorrt_llm_checkpoint(
                model,
                _DECODER_TYPES[config.spec.architecture],
                getattr(torch, config.dtype),
                export_dir=export_dir,
                inference_tensor_parallel=1,  # the default divides by the number of GPUs
            )
        calibrated.update(_layer_tensors(TensorFile(export_dir / "rank0.safetensors"), config, layer))
    return calibrated


def _layer_tensors(exported: TensorFile, config: CheckpointConfig, layer: int) -> dict[str, StoredTensor]:
    """Return the tensors that calibration made of ModelOpt's one-layer file, by their names in the whole model.

    Raises:
        StageError: one is missing or has another shape: a format that did not take effect must not pass for one that
            did.
    """
    layouts = tensor_layouts(config)
    names = []
    if config.quant_algo is not None and config.quant_algo not in NATIVE_ALGOS:
        prefixes = tuple(f"{layer_prefix(layer)}.{name}." for name in linears(config.spec))
        names += [name for name in layouts if name.startswith(prefixes) and not name.endswith(".bias")]
    if config.kv_cache_quant_algo is not None:
        names.append(kv_scale_name(layer))
    tensors = {}
    for name in names:
        local = name.replace(layer_prefix(layer), layer_prefix(0), 1)
        found = exported.entries[local].shape if local in exported.entries else None
        if found != layouts[name].shape:
            message = f"ModelOpt exported {name} as {found}, {layouts[name].shape} was expected"
            raise StageError(message, hint=f"Found nvidia-modelopt {tool_versions()['nvidia-modelopt']}.")
        tensors[name] = StoredTensor(file=exported, name=local)
    return tensors


@contextlib.contextmanager
def quiet(progress: Progress) -> Iterator[Progress]:
    """Keep what the libraries print for the error message; yield a `progress` that still reaches the terminal.

    Raises:
        StageError: in place of any exception that is not ours.
    """
    printed = io.StringIO()
    stdout, stderr = sys.stdout, sys.stderr

    def report(activity: str, share: float) -> None:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            progress(activity, share)

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield report
    except ScaleLLMError:
        raise
    except Exception as error:
        tail = "".join(f"\n  {line}" for line in printed.getvalue().splitlines()[-_NUM_TAIL_LINES:])
        message = f"ModelOpt failed: {type(error).__name__}: {error}{tail}"
        raise StageError(message, hint="int8_wo and int4_wo need no calibration.") from error
