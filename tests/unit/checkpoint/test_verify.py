"""`verify` and `reader`: a sound AWQ checkpoint made by hand, then broken in every way."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.config import CheckpointConfig
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.layout import quantized_linears, tensor_layouts
from scalellm_trt.checkpoint.packing import pack_rows
from scalellm_trt.checkpoint.reader import CheckpointReader, FullLinear, Int4Linear, Int8Linear
from scalellm_trt.checkpoint.streaming import convert_weights
from scalellm_trt.checkpoint.verify import require_sound, verify
from scalellm_trt.errors import ArtefactError, UnsupportedError
from tests.fakes.tiny_models import tiny_spec, tiny_weights, write_model, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.checkpoint.dtypes import RawArray

SPEC = tiny_spec()
GROUP_SIZE = 16
AWQ = CheckpointConfig(
    spec=SPEC, dtype="float16", quant_algo="W4A16_AWQ", kv_cache_quant_algo="FP8", group_size=GROUP_SIZE
)
QKV = "transformer.layers.1.attention.qkv"
KV_SCALE = "transformer.layers.0.attention.kv_cache_scaling_factor"


def awq_tensors() -> dict[str, tuple[str, RawArray]]:
    """Random tensors of an AWQ checkpoint; weights of all int4 values."""
    rng = np.random.default_rng(0)
    tensors: dict[str, tuple[str, RawArray]] = {}
    for name, layout in tensor_layouts(AWQ).items():
        if layout.dtype == "I8":
            values = rng.integers(-8, 8, (2 * layout.shape[0], layout.shape[1])).astype(np.int8)
            tensors[name] = ("I8", pack_rows(values))
        else:
            floats = rng.uniform(0.5, 1.5, layout.shape)
            tensors[name] = (layout.dtype, floats.astype(np.float32 if layout.dtype == "F32" else np.float16))
    return tensors


def write_awq(directory: Path, changes: Mapping[str, tuple[str, RawArray] | None]) -> Path:
    tensors: dict[str, Any] = {**awq_tensors(), **changes}
    directory.mkdir(exist_ok=True)
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    write_tensors(directory / "rank0.safetensors", present)
    checkpoint_config.write(AWQ, directory)
    return directory


def test_a_sound_checkpoint_has_no_problems(tmp_path: Path) -> None:
    assert verify(write_awq(tmp_path, {}), SPEC) == []
    require_sound(tmp_path, SPEC)


def test_modelopts_separate_kv_scales_and_bfloat16_prequant_are_accepted(tmp_path: Path) -> None:
    one = ("F32", np.ones(1, np.float32))
    changes = {KV_SCALE.replace("kv_", f"{part}_"): one for part in "kv"}
    changes[f"{QKV}.prequant_scaling_factor"] = ("BF16", np.full(64, 0x3F80, np.uint16))
    assert verify(write_awq(tmp_path, changes)) == []


NAN_SCALES = np.full((128, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (f"{QKV}.weight", None, "is missing"),
        (f"{QKV}.weight", ("I8", np.zeros((128, 64), np.int8)), r"has shape \[128, 64\], \[64, 64\] is expected"),
        (f"{QKV}.weight", ("U8", np.zeros((64, 64), np.uint8)), "has element type U8, I8 is expected"),
        (f"{QKV}.weights_scaling_factor", ("F32", np.ones((128, 2), np.float32)), r"\[128, 4\] is expected"),
        (f"{QKV}.weights_scaling_factor", ("F32", NAN_SCALES), "512 of 512 scales are not finite and positive"),
        (f"{QKV}.weights_scaling_factor", ("F32", np.zeros((128, 4), np.float32)), "512 of 512 scales"),
        (f"{QKV}.prequant_scaling_factor", ("F16", -np.ones(64, np.float16)), "64 of 64 scales"),
        (f"{QKV}.prequant_scaling_factor", ("I8", np.ones(64, np.int8)), "element type I8, F16 is expected"),
        (KV_SCALE, ("F32", np.array([np.inf], np.float32)), "1 of 1 scales"),
        ("lm_head.weight", ("F16", np.full((80, 64), np.inf, np.float16)), "holds NaN or infinite values"),
        ("transformer.extra.weight", ("F16", np.ones(1, np.float16)), "is no part of this format"),
        ("transformer.layers.9.attention.k_cache_scaling_factor", ("F32", np.ones(1, np.float32)), "is no part"),
    ],
)
def test_each_damage_is_one_problem_that_names_the_tensor(
    tmp_path: Path, name: str, tensor: tuple[str, RawArray] | None, message: str
) -> None:
    write_awq(tmp_path, {name: tensor})
    assert [problem.key for problem in verify(tmp_path)] == [name]
    with pytest.raises(ArtefactError, match=message):
        require_sound(tmp_path)


def test_weights_are_read_only_when_asked_for(tmp_path: Path) -> None:
    write_awq(tmp_path, {"lm_head.weight": ("F16", np.full((80, 64), np.nan, np.float16))})
    assert verify(tmp_path, read_weights=False) == []


def test_another_model_is_seen_by_its_fields(tmp_path: Path) -> None:
    other = dataclasses.replace(SPEC, rope_theta=10000.0)
    assert [problem.key for problem in verify(write_awq(tmp_path, {}), other)] == ["rope_theta"]


def test_integer_weights_in_a_native_checkpoint_are_explained(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    (tmp_path / "out").mkdir()
    config = config_for(SPEC, "int8_wo", "float16")
    convert_weights(tmp_path / "model", config, tmp_path / "out", lambda *_: None)
    reader = CheckpointReader(tmp_path / "out")
    tensors = {name: (reader.file.entries[name].dtype, reader.tensor(name).copy()) for name in reader.names()}
    tensors[f"{QKV}.weight"] = ("I8", np.zeros((128, 64), np.int8))
    write_tensors(tmp_path / "out" / "rank0.safetensors", tensors)
    with pytest.raises(ArtefactError, match="trtllm-build skips integer ones"):
        require_sound(tmp_path / "out")


def test_awq_linears_dequantize_to_value_times_scale_times_prequant(tmp_path: Path) -> None:
    reader = CheckpointReader(write_awq(tmp_path, {}))
    tensors = {name: raw for name, (_, raw) in awq_tensors().items()}
    packed = tensors[f"{QKV}.weight"]
    linear = reader.linear(QKV)
    assert isinstance(linear, Int4Linear)
    assert (linear.shape, linear.group_size, linear.bias) == ((128, 64), GROUP_SIZE, None)
    scales = tensors[f"{QKV}.weights_scaling_factor"].astype(np.float16).astype(np.float32)
    prequant = tensors[f"{QKV}.prequant_scaling_factor"].astype(np.float32)
    dequantized = reader.dequantize(QKV)
    for row, column in ((0, 0), (1, 15), (64, 16), (127, 63)):
        byte = int(packed[row // 2, column])
        nibble = (byte >> 4 if row % 2 else byte) & 0xF
        value = nibble - 16 if nibble >= 8 else nibble
        expected = np.float32(value) * scales[row, column // GROUP_SIZE] * prequant[column]
        assert dequantized[row, column] == expected


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_native_linears_are_quantized_on_reading(tmp_path: Path, dtype: Any) -> None:
    write_model(tmp_path / "model", dtype=dtype)
    weight = tiny_weights(SPEC)["model.layers.1.mlp.gate_proj.weight"]
    bounds = {"int8_wo": 1.5 / 128, "int4_wo": 1.1 / 8, "full_prec": 2**-8}
    for index, (weights, bound) in enumerate(bounds.items()):
        out = tmp_path / str(index)
        out.mkdir()
        convert_weights(tmp_path / "model", config_for(SPEC, weights, dtype), out, lambda *_: None)
        reader = CheckpointReader(out)
        amax = np.abs(weight).max(axis=1, keepdims=True)
        assert np.all(np.abs(reader.dequantize("transformer.layers.1.mlp.fc") - weight) <= bound * amax)
        kinds = {"int8_wo": Int8Linear, "int4_wo": Int4Linear, "full_prec": FullLinear}
        assert type(reader.linear("transformer.layers.1.mlp.fc")) is kinds[weights]
        assert type(reader.linear("lm_head")) is FullLinear


def test_bfloat16_comes_as_float32_and_float16_as_a_view_of_the_file(tmp_path: Path) -> None:
    for dtype, expected in (("bfloat16", np.float32), ("float16", np.float16)):
        write_model(tmp_path / dtype, dtype=dtype)  # type: ignore[arg-type]
        out = tmp_path / f"out-{dtype}"
        out.mkdir()
        convert_weights(tmp_path / dtype, config_for(SPEC, "full_prec", dtype), out, lambda *_: None)  # type: ignore[arg-type]
        tensor = CheckpointReader(out).tensor("lm_head.weight")
        assert tensor.dtype == expected
        assert isinstance(tensor, np.memmap) == (dtype == "float16")


def test_a_missing_tensor_and_several_ranks_are_said(tmp_path: Path) -> None:
    write_awq(tmp_path, {})
    with pytest.raises(ArtefactError, match=r"tensor nothing\.weight is missing"):
        CheckpointReader(tmp_path).linear("nothing")
    checkpoint_config.write(dataclasses.replace(AWQ, pp_size=2), tmp_path)
    with pytest.raises(UnsupportedError, match=r"parallel\.pp_size"):
        CheckpointReader(tmp_path)


def test_all_linears_of_the_layers_are_quantized_and_no_other() -> None:
    names = quantized_linears(SPEC)
    assert len(names) == 2 * 5
    assert "lm_head" not in names
