"""A whole model's tensors in, what each tensor and pipeline parallel rank holds of them out.

Ranks are numbered `pp_rank * tp_size + tp_rank`, and a rank's layers from 0, as TensorRT-LLM does. The split of every
scale follows that of the weight it belongs to (ModelOpt, `_split_model_config_for_tp`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalellm_trt.checkpoint.layout import (
    LM_HEAD,
    VOCAB_EMBEDDING,
    layer_prefix,
    linears,
    tensor_layouts,
)
from scalellm_trt.checkpoint.row_reader import num_rows
from scalellm_trt.checkpoint.tensor_file import TensorLayout
from scalellm_trt.errors import Problem

if TYPE_CHECKING:
    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.checkpoint.layout import Block, Linear

Range = tuple[int, int]

_OF_OUTPUTS: Final = ("weight", "bias", "weights_scaling_factor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What one rank holds of a tensor, which is seen as a matrix: all dimensions but the last make up its rows.

    A vector is a matrix of one column.

    Attributes:
        source: the tensor's name in the whole model.
        layout: what the rank's file holds under the rank's name; rows that `rows` does not give are zeros at the end.
        rows: ranges of the whole tensor's rows, in order.
        columns: range of its columns; None is all.
    """

    source: str
    layout: TensorLayout
    rows: tuple[Range, ...]
    columns: Range | None = None


def num_ranks(config: CheckpointConfig) -> int:
    """Return the number of rank files."""
    return config.tp_size * config.pp_size


def rank_shards(config: CheckpointConfig, rank: int) -> dict[str, Shard]:
    """Return what `rank{rank}.safetensors` holds, by the names in that file."""
    pp_rank, tp_rank = divmod(rank, config.tp_size)
    per_rank = config.spec.num_layers // config.pp_size
    mine = range(pp_rank * per_rank, (pp_rank + 1) * per_rank)
    shards = {}
    for name, layout in tensor_layouts(config).items():
        if name.startswith("transformer.layers."):
            layer, inner = name.removeprefix("transformer.layers.").split(".", 1)
            if int(layer) in mine:
                local = f"{layer_prefix(int(layer) - mine.start)}.{inner}"
                shards[local] = _layer_shard(config, name, inner, layout, tp_rank)
        elif _is_on(name, pp_rank, config.pp_size):
            shards[name] = _outer_shard(config, name, layout, tp_rank)
    return shards


def _is_on(name: str, pp_rank: int, pp_size: int) -> bool:
    """The embedding is on the first pipeline rank, what follows the layers on the last."""
    return pp_rank == 0 if name.startswith(VOCAB_EMBEDDING) else pp_rank == pp_size - 1


def _whole(name: str, layout: TensorLayout) -> Shard:
    return Shard(source=name, layout=layout, rows=((0, num_rows(layout.shape)),))


def _outer_shard(config: CheckpointConfig, name: str, layout: TensorLayout, tp_rank: int) -> Shard:
    """Embedding and head: the vocabulary, padded with zeros to a multiple of the ranks; the last norm: whole."""
    if config.tp_size == 1 or name not in (f"{VOCAB_EMBEDDING}.weight", f"{LM_HEAD}.weight"):
        return _whole(name, layout)
    vocab_size, hidden_size = layout.shape
    rows = -(-vocab_size // config.tp_size)
    start, stop = (min(vocab_size, rank * rows) for rank in (tp_rank, tp_rank + 1))
    return Shard(source=name, layout=TensorLayout(dtype=layout.dtype, shape=(rows, hidden_size)), rows=((start, stop),))


def _layer_shard(config: CheckpointConfig, name: str, inner: str, layout: TensorLayout, tp_rank: int) -> Shard:
    prefix, _, part = inner.rpartition(".")
    linear = linears(config.spec).get(prefix)
    if linear is None or config.tp_size == 1:
        return _whole(name, layout)
    if linear.blocks is None:
        return _input_shard(config, name, part, layout, tp_rank)
    is_scalar = part == "weights_scaling_factor" and config.quant_algo == "FP8"
    if part not in _OF_OUTPUTS or is_scalar:
        return _whole(name, layout)
    return _output_shard(name, linear, linear.blocks, layout, config.tp_size, tp_rank)


def _input_shard(config: CheckpointConfig, name: str, part: str, layout: TensorLayout, tp_rank: int) -> Shard:
    """Cut what runs along the inputs; a scale per output row belongs to every rank."""
    is_grouped = part == "weights_scaling_factor" and config.group_size is not None
    if part not in ("weight", "prequant_scaling_factor") and not is_grouped:
        return _whole(name, layout)
    size = layout.shape[-1] // config.tp_size
    cut = (tp_rank * size, (tp_rank + 1) * size)
    local = TensorLayout(dtype=layout.dtype, shape=(*layout.shape[:-1], size))
    if len(layout.shape) == 1:
        return Shard(source=name, layout=local, rows=(cut,))
    return Shard(source=name, layout=local, rows=((0, num_rows(layout.shape)),), columns=cut)


def _output_shard(
    name: str, linear: Linear, blocks: tuple[Block, ...], layout: TensorLayout, tp_size: int, tp_rank: int
) -> Shard:
    """Cut each block of output rows; a stored row may hold two of them (4-bit weights)."""
    is_vector = len(layout.shape) == len(linear.shape) - 1  # a bias, a scale per row
    stored_out = layout.shape[-1] if is_vector else layout.shape[-2]
    rows_per_stored = linear.out_size // stored_out
    num_experts = math.prod(linear.shape[:-2])
    ranges, local_out = [], 0
    for expert in range(num_experts):
        offset = expert * linear.out_size
        for block in blocks:
            start, stop = (offset + edge for edge in _block_range(block, tp_size, tp_rank))
            ranges.append((start // rows_per_stored, stop // rows_per_stored))
            local_out += (stop - start) // rows_per_stored
            offset += block.rows
    out = local_out // num_experts
    shape = (*layout.shape[:-1], out) if is_vector else (*layout.shape[:-2], out, layout.shape[-1])
    return Shard(source=name, layout=TensorLayout(dtype=layout.dtype, shape=shape), rows=tuple(ranges))


def _block_range(block: Block, tp_size: int, tp_rank: int) -> Range:
    """Return a rank's rows of a block; with fewer units than ranks (KV heads), neighbours hold the same unit."""
    num_units = block.rows // block.unit
    if num_units < tp_size:
        unit = tp_rank * num_units // tp_size
        return unit * block.unit, (unit + 1) * block.unit
    size = num_units // tp_size * block.unit
    return tp_rank * size, (tp_rank + 1) * size


def rank_problems(config: CheckpointConfig) -> list[Problem]:
    """Return why the model cannot be shared out as `config` says."""
    spec, tp_size = config.spec, config.tp_size
    problems = []

    def refuse(key: str, size: int, what: str, hint: str) -> None:
        problems.append(Problem(key=key, message=f"{size} does not divide the model's {what}", hint=hint))

    if spec.num_layers % config.pp_size:
        sizes = [size for size in range(1, spec.num_layers + 1) if spec.num_layers % size == 0]
        hint = f"Allowed: {', '.join(str(size) for size in sizes)}."
        refuse("parallel.pp_size", config.pp_size, f"{spec.num_layers} layers", hint)
    if tp_size == 1:
        return problems
    for size, what in ((spec.num_heads, "attention heads"), (spec.intermediate_size, "intermediate_size")):
        if size % tp_size:
            refuse("parallel.tp_size", tp_size, f"{size} {what}", "Use a smaller power of two.")
    if spec.num_kv_heads % tp_size and tp_size % spec.num_kv_heads:
        refuse("parallel.tp_size", tp_size, f"{spec.num_kv_heads} KV heads, nor they it", "Use a smaller power of two.")
    if not problems and config.group_size is not None:
        for name, linear in linears(spec).items():
            if linear.blocks is None and linear.in_size // tp_size % config.group_size:
                what = f"{linear.in_size // tp_size} inputs of {name} on each of {tp_size} ranks"
                refuse("quantization.group_size", config.group_size, what, "Use a smaller group or fewer ranks.")
    return problems
