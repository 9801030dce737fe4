"""A GGUF file's tensors in, Hugging Face safetensors out: dequantized, renamed and in Hugging Face's row order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scalellm_trt.model_source import safetensors_file
from scalellm_trt.model_source.gguf_config import OUTPUT_TENSOR, ROPE_FACTORS_TENSOR
from scalellm_trt.model_source.safetensors_file import TensorEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from scalellm_trt.model_source.gguf_config import GgufModel
    from scalellm_trt.model_source.gguf_file import GgufFile, GgufTensor

# Elements that are dequantized at a time: 16 MiB as float32, of which numpy holds a few copies.
CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightPlan:
    """Where one tensor comes from and how it is named.

    Attributes:
        gguf_name: its name in the GGUF file.
        entry: its name, shape and type in the safetensors file.
        num_permuted_heads: heads whose rows the converter reordered; None where it did not.
    """

    gguf_name: str
    entry: TensorEntry
    num_permuted_heads: int | None = None


def plan(file: GgufFile, model: GgufModel) -> list[WeightPlan]:
    """Match the file's tensors with those that the model must have.

    Raises:
        ArtefactError: a tensor is missing or has another shape.
        UnsupportedError: one is there that the architecture does not know, or has a type that is not dequantized.
    """
    plans = [*_outer_plans(model), *(item for layer in range(model.num_layers) for item in _layer_plans(model, layer))]
    expected = {item.gguf_name for item in plans}
    unknown = sorted(set(file.tensors) - expected - {ROPE_FACTORS_TENSOR})
    if unknown:
        message = f"holds {len(unknown)} tensors that a plain {model.family.architecture} does not have: "
        file.refuse(message + ", ".join(unknown[:5]))
    missing = sorted(expected - set(file.tensors))
    if missing:
        file.fail(f"{len(missing)} tensors are missing: {', '.join(missing[:5])}")
    for item in plans:
        found = file.tensors[item.gguf_name]
        if found.shape != item.entry.shape:
            file.fail(f"tensor {found.name} has the shape {found.shape}, the model's is {item.entry.shape}")
    _refuse_undequantizable(file)
    return plans


def write(
    file: GgufFile, model: GgufModel, directory: Path, progress: Callable[[float], None], *, chunk_elements: int
) -> None:
    """Write the model's weights to `directory`; `progress` gets the share that is done, after each tensor.

    Raises:
        ArtefactError, UnsupportedError: as `plan`; a value does not fit into the model's type.
    """
    plans = {item.entry.name: item for item in plan(file, model)}
    total = sum(item.entry.num_bytes for item in plans.values())
    done = 0

    def chunks(entry: TensorEntry) -> Iterator[npt.NDArray[np.generic]]:
        nonlocal done
        yield from _chunks(file, plans[entry.name], chunk_elements)
        done += entry.num_bytes
        progress(done / total)

    safetensors_file.write_model(directory, [item.entry for item in plans.values()], chunks)


def unpermuted_rows(num_rows: int, num_heads: int) -> npt.NDArray[np.intp]:
    """Return, for each row in Hugging Face's order, its place in llama.cpp's.

    Hugging Face rotates element i of a head with element i + head_dim / 2, ggml's `llama` rotates neighbours: the
    converter interleaves the halves of each head of q and k (`permute` in llama.cpp's convert_hf_to_gguf.py).
    """
    return np.arange(num_rows).reshape(num_heads, -1, 2).swapaxes(1, 2).reshape(num_rows)


def _outer_plans(model: GgufModel) -> Iterator[WeightPlan]:
    table = (model.vocab_size, model.hidden_size)
    yield _plan(model, "token_embd.weight", "model.embed_tokens.weight", table)
    yield _plan(model, "output_norm.weight", "model.norm.weight", (model.hidden_size,))
    if not model.has_tied_embeddings:
        yield _plan(model, OUTPUT_TENSOR, "lm_head.weight", table)


def _layer_plans(model: GgufModel, layer: int) -> Iterator[WeightPlan]:
    hidden, intermediate = model.hidden_size, model.intermediate_size
    q_size, kv_size = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    gguf, ours = f"blk.{layer}.", f"model.layers.{layer}."
    is_permuted = model.family.has_permuted_qk
    yield _plan(model, f"{gguf}attn_norm.weight", f"{ours}input_layernorm.weight", (hidden,))
    for letter, rows, num_heads in (
        ("q", q_size, model.num_heads if is_permuted else None),
        ("k", kv_size, model.num_kv_heads if is_permuted else None),
        ("v", kv_size, None),
    ):
        name, projection = f"{gguf}attn_{letter}", f"{ours}self_attn.{letter}_proj"
        yield _plan(model, f"{name}.weight", f"{projection}.weight", (rows, hidden), num_heads)
        if model.family.has_qkv_bias:
            yield _plan(model, f"{name}.bias", f"{projection}.bias", (rows,))
    if model.family.has_qk_norm:
        for letter in "qk":
            norm = f"{ours}self_attn.{letter}_norm.weight"
            yield _plan(model, f"{gguf}attn_{letter}_norm.weight", norm, (model.head_dim,))
    yield _plan(model, f"{gguf}attn_output.weight", f"{ours}self_attn.o_proj.weight", (hidden, q_size))
    yield _plan(model, f"{gguf}ffn_norm.weight", f"{ours}post_attention_layernorm.weight", (hidden,))
    up, down = (intermediate, hidden), (hidden, intermediate)
    for part, shape in (("gate", up), ("up", up), ("down", down)):
        yield _plan(model, f"{gguf}ffn_{part}.weight", f"{ours}mlp.{part}_proj.weight", shape)


def _plan(
    model: GgufModel, gguf_name: str, name: str, shape: tuple[int, ...], num_permuted_heads: int | None = None
) -> WeightPlan:
    entry = TensorEntry(name=name, shape=shape, dtype=model.dtype)
    return WeightPlan(gguf_name=gguf_name, entry=entry, num_permuted_heads=num_permuted_heads)


def _refuse_undequantizable(file: GgufFile) -> None:
    from gguf import quants

    first_of_type = {tensor.type_name: tensor for tensor in file.tensors.values()}
    for tensor in first_of_type.values():
        try:
            # Each type either can be dequantized or not, whatever the data: one row tells before anything is written.
            quants.dequantize(file.raw_rows(tensor)[:1], _ggml_type(tensor))
        except NotImplementedError:
            hint = "Take the model in a common type: Q4_K, Q6_K, Q8_0, F16, BF16."
            file.refuse(f"tensor {tensor.name} has the type {tensor.type_name}", hint)


def _chunks(file: GgufFile, item: WeightPlan, chunk_elements: int) -> Iterator[npt.NDArray[np.generic]]:
    """Dequantize some rows at a time; quantized blocks lie inside a row, so rows can be reordered before that."""
    from gguf import quants

    tensor = file.tensors[item.gguf_name]
    rows = file.raw_rows(tensor)
    order = None if item.num_permuted_heads is None else unpermuted_rows(len(rows), item.num_permuted_heads)
    step = max(1, chunk_elements // tensor.shape[-1])
    for start in range(0, len(rows), step):
        raw = rows[start : start + step] if order is None else rows[order[start : start + step]]
        values: npt.NDArray[np.float32] = quants.dequantize(raw, _ggml_type(tensor))
        narrowed = _narrow(values, item.entry.dtype)
        if narrowed is None:
            file.refuse(f"tensor {tensor.name} holds values that {item.entry.dtype} cannot")
        yield narrowed


def _narrow(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.generic] | None:
    """Round to `dtype`, to nearest even; None where a value is no number or too large."""
    if not np.isfinite(values).all():
        return None
    if dtype == "float16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        return half if np.isfinite(half).all() else None
    if dtype == "bfloat16":
        bits = values.view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        return None if ((rounded & 0x7F80) == 0x7F80).any() else rounded  # all exponent bits: infinity
    return np.ascontiguousarray(values)


def _ggml_type(tensor: GgufTensor) -> object:
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType[tensor.type_name]
