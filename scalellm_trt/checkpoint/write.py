"""One plan's quantization in, its checkpoint directory out: the only function of this package that backends call.

`checkpoint_config` decides without touching a weight, `write_checkpoint` does the work, `require_sound` (verify) checks
what is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.checkpoint import formats
from scalellm_trt.checkpoint.calibration import CalibrationSamples, draw_samples, read_tokenizer
from scalellm_trt.checkpoint.eta import with_eta
from scalellm_trt.checkpoint.streaming import convert_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.checkpoint.dtypes import CheckpointDtype
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan import QuantizationPlan

    Progress = Callable[[str, float], None]


def checkpoint_config(
    spec: ModelSpec, quantization: QuantizationPlan, *, dtype: CheckpointDtype, tp_size: int = 1, pp_size: int = 1
) -> CheckpointConfig:
    """Return the config of the checkpoint that `write_checkpoint` writes; pure, for `Backend.check` too.

    Raises:
        UnsupportedError: the format, the KV cache format or the number of ranks cannot be made of this model, with
            every reason.
    """
    return formats.config_for(
        spec,
        quantization.weights,
        dtype,
        quantization.kv_cache_dtype,
        group_size=quantization.group_size,
        tp_size=tp_size,
        pp_size=pp_size,
    )


def write_checkpoint(
    model_dir: Path,
    spec: ModelSpec,
    quantization: QuantizationPlan,
    out_dir: Path,
    progress: Progress,
    *,
    dtype: CheckpointDtype,
    tp_size: int = 1,
    pp_size: int = 1,
) -> None:
    """Write config.json, rankN.safetensors and the tokenizer's files into the empty directory `out_dir`.

    A format that is calibrated leaves `calibration.json` beside them: samples, their digest, versions of the libraries.

    Args:
        model_dir: a Hugging Face directory with safetensors.
        spec: of this very model.
        quantization: weight format, group size, KV cache format and calibration, nothing left open.
        out_dir: an empty directory.
        progress: called with an activity, and the share done, which only rises.
        dtype: element type of what is not quantized.
        tp_size: tensor parallel ranks.
        pp_size: pipeline parallel ranks.

    Raises:
        RecipeError: the calibration text cannot be read.
        ToolchainError: a library that calibration needs is missing or too old.
        ArtefactError: the model's files are incomplete or damaged.
        UnsupportedError: see `checkpoint_config`.
        StageError: calibration failed, or the disk is full.
    """
    config = checkpoint_config(spec, quantization, dtype=dtype, tp_size=tp_size, pp_size=pp_size)
    if not formats.needs_calibration(config):
        convert_weights(model_dir, config, out_dir, with_eta(progress))
        return
    from scalellm_trt.checkpoint import modelopt

    modelopt.tool_versions()
    samples = calibration_samples(model_dir, quantization)
    modelopt.quantize(model_dir, config, samples, out_dir, with_eta(progress))


def calibration_samples(model_dir: Path, quantization: QuantizationPlan) -> CalibrationSamples:
    """Draw the samples that the plan asks for, with the model's own tokenizer.

    Raises:
        RecipeError: the calibration text cannot be read.
        ArtefactError: the model has no fast tokenizer.
    """
    calibration = quantization.calibration
    if calibration is None:  # our own bug: the plan sets it for every calibrated format
        message = f"{quantization.weights} with a {quantization.kv_cache_dtype} KV cache needs calibration text"
        raise AssertionError(message)
    return draw_samples(
        calibration.source,
        read_tokenizer(model_dir),
        num_samples=calibration.num_samples,
        max_seq_len=calibration.max_seq_len,
        seed=calibration.seed,
    )
