"""A Hugging Face model in, a quantized one out: ModelOpt's unified checkpoint, which backend llmapi loads.

ModelOpt exports layer by layer (see `layerwise`); the layers' files are renamed to what they are in the whole model,
and what no format touches is copied from the source. Only the input norms may differ from the source: AWQ folds its
input scales into them.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

from scalellm_trt.checkpoint.dtypes import FLOAT_DTYPES, STORED_DTYPES
from scalellm_trt.checkpoint.eta import with_eta
from scalellm_trt.checkpoint.formats import group_problems
from scalellm_trt.checkpoint.layerwise import best_device, quantized_layers
from scalellm_trt.checkpoint.modelopt import SCRATCH, quiet, tool_versions, write_record
from scalellm_trt.checkpoint.modelopt_rules import rules_for
from scalellm_trt.checkpoint.row_reader import num_rows
from scalellm_trt.checkpoint.source import SourceWeights
from scalellm_trt.checkpoint.streaming import StoredTensor, converted_rows
from scalellm_trt.checkpoint.tensor_file import TensorFile, TensorFileWriter, TensorLayout
from scalellm_trt.checkpoint.tokenizer_files import copy_tokenizer_files
from scalellm_trt.checkpoint.write import calibration_samples
from scalellm_trt.errors import ArtefactError, Problem, StageError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from scalellm_trt.checkpoint.calibration import CalibrationSamples
    from scalellm_trt.checkpoint.config import KvCacheQuantAlgo
    from scalellm_trt.checkpoint.dtypes import CheckpointDtype
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan import QuantizationPlan

    Progress = Callable[[str, float], None]

QUANT_ALGOS: Final[dict[str, str | None]] = {
    "full_prec": None,
    "fp8": "FP8",
    "int4_awq": "W4A16_AWQ",
    "w4a8_awq": "W4A8_AWQ",
    "nvfp4": "NVFP4",
}
QUANT_CONFIG: Final = "hf_quant_config.json"
INDEX: Final = "model.safetensors.index.json"

_OUTER: Final = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
# Tensors in the model's own type; every other floating-point tensor is a scale, and keeps ModelOpt's.
_IN_MODEL_DTYPE: Final = (".weight", ".bias", ".pre_quant_scale")
_CALIBRATION_SHARE: Final = 0.9


def unified_problems(spec: ModelSpec, quantization: QuantizationPlan) -> list[Problem]:
    """Return why these formats have no unified checkpoint of this model; pure, for `Backend.check`."""
    problems = []
    if quantization.weights not in QUANT_ALGOS:
        message = f"{quantization.weights!r} has no form in a unified Hugging Face checkpoint"
        hint = f"Allowed: {', '.join(QUANT_ALGOS)}."
        problems.append(Problem(key="quantization.weights", message=message, hint=hint))
    if quantization.kv_cache_dtype == "int8":
        message = (
            "'int8' has no form in a unified Hugging Face checkpoint: TensorRT-LLM's PyTorch backend reads FP8 only"
        )
        problems.append(Problem(key="quantization.kv_cache_dtype", message=message, hint="Allowed: auto, fp8."))
    if quantization.group_size is not None and quantization.weights in ("int4_awq", "w4a8_awq"):
        problems += group_problems(spec, quantization.group_size)
    return problems


def write_unified(
    model_dir: Path,
    spec: ModelSpec,
    quantization: QuantizationPlan,
    out_dir: Path,
    progress: Progress,
    *,
    dtype: CheckpointDtype,
    device: str | None = None,
) -> None:
    """Write a complete Hugging Face model into the empty directory `out_dir`.

    There is a safetensors file per layer and one for what is around them, their index, config.json with
    `quantization_config`, `hf_quant_config.json`, the tokenizer's files, and `calibration.json` where text was used.

    Args:
        model_dir: a Hugging Face directory with safetensors.
        spec: of this very model.
        quantization: weight format, group size, KV cache format and calibration, nothing left open.
        out_dir: an empty directory on a disk with room for the checkpoint twice.
        progress: called with an activity, and the share done, which only rises.
        dtype: element type of what is not quantized.
        device: `cuda` or `cpu`; None takes a GPU where there is one.

    Raises:
        RecipeError: the calibration text cannot be read.
        ToolchainError: a library that calibration needs is missing or too old.
        ArtefactError: the model's files are incomplete or damaged.
        UnsupportedError: see `unified_problems`.
        StageError: ModelOpt failed, or the disk is full.
    """
    if problems := unified_problems(spec, quantization):
        raise UnsupportedError(problems)
    progress = with_eta(progress)
    weights = SourceWeights(model_dir)
    weights.check(spec)
    kv_algo: KvCacheQuantAlgo | None = "FP8" if quantization.kv_cache_dtype == "fp8" else None
    algo = QUANT_ALGOS[quantization.weights]
    if algo is None and kv_algo is None:
        files = _source_layers(weights, spec)
    else:
        tool_versions()
        samples = calibration_samples(model_dir, quantization)
        rules = rules_for(algo, kv_algo, None if algo == "NVFP4" else quantization.group_size)
        files = _exported_layers(weights, spec, rules, samples, out_dir, progress, dtype, device or best_device())
        write_record(samples, out_dir)
    outer = [name for name in _OUTER if not (name == "lm_head.weight" and spec.tie_word_embeddings)]
    files.append({name: StoredTensor(file=weights.files[name], name=name) for name in outer})
    _write_files(files, out_dir, dtype, progress)
    _write_configs(model_dir, spec, out_dir, dtype, (algo, kv_algo))
    copy_tokenizer_files(model_dir, out_dir)
    shutil.rmtree(out_dir / SCRATCH, ignore_errors=True)
    progress("written", 1.0)


def _source_layers(weights: SourceWeights, spec: ModelSpec) -> list[Mapping[str, StoredTensor]]:
    return [
        {name: StoredTensor(file=file, name=name) for name, file in weights.files.items() if _is_of(name, layer)}
        for layer in range(spec.num_layers)
    ]


def _is_of(name: str, layer: int) -> bool:
    return name.startswith(f"model.layers.{layer}.") and not name.endswith(".rotary_emb.inv_freq")


def _exported_layers(
    weights: SourceWeights,
    spec: ModelSpec,
    rules: dict[str, Any],
    samples: CalibrationSamples,
    out_dir: Path,
    progress: Progress,
    dtype: CheckpointDtype,
    device: str,
) -> list[Mapping[str, StoredTensor]]:
    """Let ModelOpt quantize and export layer by layer into `out_dir / SCRATCH`."""
    import torch
    from modelopt.torch.export import export_hf_checkpoint

    scratch = out_dir / SCRATCH
    scratch.mkdir()
    layers: list[Mapping[str, StoredTensor]] = []
    with quiet(progress) as report:

        def calibration_progress(activity: str, share: float) -> None:
            report(activity, _CALIBRATION_SHARE * share)

        quantized = quantized_layers(
            weights, spec, rules, samples, scratch, calibration_progress, dtype=dtype, device=device
        )
        for layer, model in quantized:
            export_dir = scratch / f"layer-{layer}"
            with torch.inference_mode():
                export_hf_checkpoint(model, dtype=model.dtype, export_dir=export_dir)
            tensors = {}
            for path in sorted(export_dir.glob("*.safetensors")):
                file = TensorFile(path)
                tensors.update({name: StoredTensor(file=file, name=name) for name in file.entries if _is_of(name, 0)})
            layers.append({_renumbered(name, layer): stored for name, stored in tensors.items()})
    return layers


def _renumbered(name: str, layer: int) -> str:
    return name.replace("model.layers.0.", f"model.layers.{layer}.", 1)


def _write_files(
    files: list[Mapping[str, StoredTensor]], out_dir: Path, dtype: CheckpointDtype, progress: Progress
) -> None:
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for number, tensors in enumerate(files, start=1):
        name = f"model-{number:05}-of-{len(files):05}.safetensors"
        progress(f"writing {name}", _CALIBRATION_SHARE + (1 - _CALIBRATION_SHARE) * (number - 1) / len(files))
        layouts = {tensor: _layout(tensor, stored, dtype) for tensor, stored in tensors.items()}
        with TensorFileWriter(out_dir / name, layouts) as writer:
            for tensor in writer.names():
                stored, layout = tensors[tensor], layouts[tensor]
                writer.write(tensor, converted_rows(stored, (0, num_rows(layout.shape)), None, layout.dtype))
        total_bytes += sum(layout.size_bytes for layout in layouts.values())
        weight_map.update(dict.fromkeys(layouts, name))
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    _write_json(out_dir / INDEX, index)


def _layout(name: str, stored: StoredTensor, dtype: CheckpointDtype) -> TensorLayout:
    found = stored.file.dtype(stored.name)
    is_of_model = found in FLOAT_DTYPES and name.endswith(_IN_MODEL_DTYPE)
    shape = stored.file.entries[stored.name].shape
    return TensorLayout(dtype=STORED_DTYPES[dtype] if is_of_model else found, shape=shape)


def _write_configs(
    model_dir: Path,
    spec: ModelSpec,
    out_dir: Path,
    dtype: CheckpointDtype,
    algos: tuple[str | None, KvCacheQuantAlgo | None],
) -> None:
    """Write config.json and ModelOpt's two accounts of the quantization, for all layers instead of one.

    Raises:
        StageError: ModelOpt's account is not of the formats that were asked for.
    """
    config = _read_json(model_dir / "config.json")
    config.pop("dtype", None)
    config["torch_dtype"] = dtype
    if algos != (None, None):
        exported = out_dir / SCRATCH / "layer-0"
        quantization = _read_json(exported / QUANT_CONFIG)
        found = quantization["quantization"]
        if (found["quant_algo"], found["kv_cache_quant_algo"]) != algos:
            message = f"ModelOpt exported {found['quant_algo']} with a {found['kv_cache_quant_algo']} KV cache"
            raise StageError(message, hint=f"{algos[0]} with {algos[1]} was asked for.")
        found["exclude_modules"] = list(_for_all_layers(found["exclude_modules"], spec.num_layers))
        _write_json(out_dir / QUANT_CONFIG, quantization)
        config["quantization_config"] = _read_json(exported / "config.json")["quantization_config"]
        config["quantization_config"]["ignore"] = found["exclude_modules"]
    _write_json(out_dir / "config.json", config)


def _for_all_layers(modules: list[str], num_layers: int) -> Iterator[str]:
    for module in modules:
        if "model.layers.0." in module:
            yield from (_renumbered(module, layer) for layer in range(num_layers))
        else:
            yield module


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read: {error}"
        raise ArtefactError(message, hint="Fetch the model again.") from error
    return read


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
