from __future__ import annotations

import json
import struct
import tracemalloc
from typing import TYPE_CHECKING, Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from scalellm_trt.errors import ArtefactError, UnsupportedError
from scalellm_trt.model_source import gguf_config, gguf_weights
from scalellm_trt.model_source.gguf_file import GgufFile
from tests.fakes import gguf_models

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from tests.fakes.gguf_models import Tensors


def imported(directory: Path, *, chunk_elements: int = 1000, **arguments: Any) -> Tensors:
    """Write a GGUF file, import its weights and return them as float32, by name."""
    file = GgufFile(gguf_models.write(directory / "m.gguf", **arguments))
    gguf_weights.write(file, gguf_config.read(file), directory, lambda share: None, chunk_elements=chunk_elements)
    return read(directory / "model.safetensors")


def read(path: Path) -> Tensors:
    """Read a safetensors file; its own library needs torch for bfloat16, so the bits are taken from there."""
    tensors = {}
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - a safe_open is no mapping
            kind = file.get_slice(name).get_dtype()
            tensors[name] = bfloat16(path, name) if kind == "BF16" else file.get_tensor(name).astype(np.float32)
    return tensors


def bfloat16(path: Path, name: str) -> npt.NDArray[np.float32]:
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(content[8 : 8 + length])[name]
    start, end = entry["data_offsets"]
    values = np.frombuffer(content[8 + length :][start:end], dtype=ml_dtypes.bfloat16)
    return values.reshape(entry["shape"]).astype(np.float32)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_every_tensor_has_its_name_and_row_order_back(tmp_path: Path, family: str, is_tied: bool) -> None:
    original = gguf_models.hf_tensors(family, is_tied=is_tied)
    tensors = imported(tmp_path, family=family, tensors=original)
    assert set(tensors) == set(original)
    for name, weight in original.items():
        np.testing.assert_array_equal(tensors[name], weight, err_msg=name)


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_16_bit_weights_come_through_bit_for_bit(tmp_path: Path, name: str) -> None:
    original = gguf_models.hf_tensors()
    tensors = imported(tmp_path, tensors=original, quantization=gguf.GGMLQuantizationType[name])
    for key, weight in original.items():
        expected = weight.astype(np.float16).astype(np.float32) if name == "F16" else weight
        np.testing.assert_array_equal(tensors[key], expected, err_msg=key)


@pytest.mark.parametrize(("name", "levels"), [("Q8_0", 127), ("Q4_0", 8), ("Q4_1", 15), ("Q5_0", 16), ("Q5_1", 31)])
def test_quantized_weights_are_within_a_step_of_the_original(tmp_path: Path, name: str, levels: int) -> None:
    original = gguf_models.hf_tensors()
    tensors = imported(tmp_path, tensors=original, quantization=gguf.GGMLQuantizationType[name])
    for key, weight in original.items():
        if weight.ndim == 1:
            np.testing.assert_array_equal(tensors[key], weight.astype(np.float16).astype(np.float32), err_msg=key)
            continue
        blocks = weight.reshape(-1, 32)
        span = np.ptp(blocks, axis=1) if name.endswith("_1") else np.abs(blocks).max(axis=1)
        errors = np.abs(tensors[key].reshape(-1, 32) - blocks).max(axis=1)
        # A step, and what float16 rounds off the scale and the result.
        assert (errors <= span / levels * 1.02 + 1e-2).all(), key


def q4_k_block(block: bytes) -> list[float]:
    """One block of 256 weights as ggml defines it (`dequantize_row_q4_K`), weight by weight."""
    d, d_min = np.frombuffer(block[:4], dtype=np.float16).astype(float)
    packed, quants = block[4:16], block[16:]
    values: list[float] = []
    for group in range(8):
        if group < 4:
            scale, low = packed[group] & 63, packed[group + 4] & 63
        else:
            scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4
            low = packed[group + 4] >> 4 | (packed[group] >> 6) << 4
        part = quants[group // 2 * 32 : group // 2 * 32 + 32]
        values += [d * scale * (byte >> 4 if group % 2 else byte & 15) - d_min * low for byte in part]
    return values


def q6_k_block(block: bytes) -> list[float]:
    """One block of 256 weights as ggml defines it (`dequantize_row_q6_K`), weight by weight."""
    low, high, scales = block[:128], block[128:192], np.frombuffer(block[192:208], dtype=np.int8)
    (d,) = np.frombuffer(block[208:], dtype=np.float16).astype(float)
    values = []
    for index in range(256):
        half, quarter, place = index // 128, index % 128 // 32, index % 32
        byte = low[half * 64 + quarter % 2 * 32 + place]
        nibble = byte >> 4 if quarter > 1 else byte & 15
        number = (nibble | (high[half * 32 + place] >> 2 * quarter & 3) << 4) - 32
        values.append(d * int(scales[index // 16]) * number)
    return values


@pytest.mark.parametrize(("name", "decode"), [("Q4_K", q4_k_block), ("Q6_K", q6_k_block)])
def test_k_quantized_weights_are_what_ggml_defines(tmp_path: Path, name: str, decode: Any) -> None:
    kind = gguf.GGMLQuantizationType[name]
    tensors = imported(tmp_path, quantization=kind)
    weight = tensors["model.layers.1.mlp.down_proj.weight"]
    block_bytes = gguf.GGML_QUANT_SIZES[kind][1]
    raw = gguf_models.random_blocks(weight.shape, kind)
    for row in (0, 1, 63):
        expected = np.array(decode(raw[row, :block_bytes].tobytes()), dtype=np.float32)
        np.testing.assert_allclose(weight[row, :256], expected, rtol=1e-3, atol=1e-6)


def test_unpermuted_rows_undo_what_the_converter_did() -> None:
    # Two heads of four rows: the converter writes 0 2 1 3, 4 6 5 7 (each head's halves interleaved).
    assert gguf_models.permuted(np.arange(8, dtype=np.float32), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert gguf_weights.unpermuted_rows(8, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    # With eight rows a head the permutation is not its own inverse.
    converted = gguf_models.permuted(np.arange(16, dtype=np.float32), 2)
    assert converted[gguf_weights.unpermuted_rows(16, 2)].tolist() == list(range(16))


@pytest.mark.parametrize("chunk_elements", [1, 300, 1 << 22])
def test_the_result_does_not_depend_on_the_size_of_a_chunk(tmp_path: Path, chunk_elements: int) -> None:
    imported(tmp_path, quantization=gguf.GGMLQuantizationType.Q4_0, chunk_elements=chunk_elements)
    reference = tmp_path / "reference"
    reference.mkdir()
    imported(reference, quantization=gguf.GGMLQuantizationType.Q4_0, chunk_elements=7777)
    assert (tmp_path / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()


def test_memory_does_not_grow_with_a_tensor(tmp_path: Path) -> None:
    path = gguf_models.write(tmp_path / "m.gguf")
    peaks = []
    for vocab_size in (4_000, 40_000):  # 0.5 and 5 MiB as float16
        tensors = gguf_models.hf_tensors(vocab_size=vocab_size)
        file = GgufFile(gguf_models.write(path, tensors=tensors, quantization=gguf.GGMLQuantizationType.F16))
        model = gguf_config.read(file)
        del tensors
        tracemalloc.start()
        gguf_weights.write(file, model, tmp_path, lambda share: None, chunk_elements=1 << 14)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5
    assert peaks[1] < 1 << 20


def test_progress_ends_at_one(tmp_path: Path) -> None:
    file = GgufFile(gguf_models.write(tmp_path / "m.gguf"))
    shares: list[float] = []
    gguf_weights.write(file, gguf_config.read(file), tmp_path, shares.append, chunk_elements=1 << 20)
    assert shares == sorted(shares)
    assert len(shares) == len(file.tensors)
    assert shares[-1] == 1.0


def test_an_unknown_tensor_is_refused_by_name(tmp_path: Path) -> None:
    extra = {"blk.0.attn_sub_norm.weight": np.ones(4, dtype=np.float32)}
    with pytest.raises(
        UnsupportedError, match=r"1 tensors that a plain LlamaForCausalLM.*blk\.0\.attn_sub_norm\.weight"
    ):
        imported(tmp_path, extra=extra)


def test_a_missing_tensor_is_damage(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"1 tensors are missing: blk\.1\.ffn_up\.weight"):
        imported(tmp_path, without=["blk.1.ffn_up.weight"])


def test_a_tensor_of_another_shape_is_damage(tmp_path: Path) -> None:
    tensors = gguf_models.hf_tensors()
    tensors["model.norm.weight"] = np.ones(8, dtype=np.float32)
    with pytest.raises(ArtefactError, match=r"output_norm\.weight has the shape \(8,\), the model's is \(64,\)"):
        imported(tmp_path, tensors=tensors)


def test_a_value_beyond_float16_is_refused_not_turned_into_infinity(tmp_path: Path) -> None:
    tensors = gguf_models.hf_tensors()
    tensors["model.norm.weight"][3] = 70000.0
    with pytest.raises(UnsupportedError, match=r"output_norm\.weight holds values that float16 cannot"):
        imported(tmp_path, tensors=tensors, quantization=gguf.GGMLQuantizationType.F16)


def test_a_value_that_is_no_number_is_refused(tmp_path: Path) -> None:
    tensors = gguf_models.hf_tensors()
    tensors["model.norm.weight"][3] = np.nan
    with pytest.raises(UnsupportedError, match=r"output_norm\.weight holds values"):
        imported(tmp_path, tensors=tensors)


def test_bfloat16_vectors_are_rounded_to_the_nearest_even(tmp_path: Path) -> None:
    tensors = gguf_models.hf_tensors()
    vector = np.random.default_rng(3).standard_normal(gguf_models.HIDDEN).astype(np.float32)
    vector[:2] = np.array([0x3F808000, 0x3F818000], dtype=np.uint32).view(np.float32)  # halfway: down, up
    tensors["model.norm.weight"] = vector
    found = imported(tmp_path, tensors=tensors, quantization=gguf.GGMLQuantizationType.BF16)["model.norm.weight"]
    np.testing.assert_array_equal(found, vector.astype(ml_dtypes.bfloat16).astype(np.float32))
