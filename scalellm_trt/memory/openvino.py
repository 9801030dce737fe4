"""Budgets of the CPU backend: host memory and disk of quantize, compile, load and serve.

The figures that no formula gives stand in data/toolchains.yaml, with how they were measured. Pages of mapped files
are not counted: the kernel drops them when memory is short.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.memory import calibration
from scalellm_trt.memory.formulas import (
    BYTES_OF_DTYPE,
    activation_bytes_per_token,
    checkpoint_bytes,
    kv_cache_bytes_per_block,
    linear_bytes,
    logits_bytes,
    num_blocks,
    num_small_parameters,
)
from scalellm_trt.memory.types import MemoryBudget, MemoryItem

if TYPE_CHECKING:
    from scalellm_trt.memory.types import MemoryInputs, Place, Stage

FLOAT32_BYTES = 4


def budgets(inputs: MemoryInputs) -> tuple[MemoryBudget, ...]:
    """Return the budgets of the four stages in host memory, then those of the two that write to disk."""
    usable = max(0, inputs.machine.memory_total_bytes - inputs.hardware.reserved_bytes)
    disk = inputs.machine.disk_free_bytes

    def budget(stage: Stage, place: Place, items: list[MemoryItem], available: int) -> MemoryBudget:
        return MemoryBudget(stage=stage, place=place, items=tuple(items), available_bytes=available)

    return (
        budget("quantize", "host", calibration.host_items(inputs), usable),
        budget("compile", "host", compile_items(inputs), usable),
        budget("load", "host", load_items(inputs), usable),
        budget("serve", "host", serve_items(inputs), usable),
        budget("quantize", "disk", calibration.disk_items(inputs), disk),
        budget("compile", "disk", [_item("engine", engine_file_bytes(inputs), "weights in their format")], disk),
    )


def compile_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """The graph's constants are held until they are saved; matrices are quantized in small pieces."""
    return [
        _item("python", inputs.toolchain.memory["compile_process_bytes"], "interpreter, openvino, the graph"),
        _item("constants", engine_file_bytes(inputs), "the engine's weights, until they are saved"),
    ]


def load_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """What is there before the first request: the engine's file is mapped, its matrices not packed yet."""
    figures, services = inputs.toolchain.memory, inputs.services
    graph = inputs.spec.num_layers * figures["graph_bytes_per_layer"]
    return [
        _item("tritonserver", figures["server_process_bytes"], "one process for all services"),
        _item(
            "engine process",
            services * figures["engine_process_bytes"],
            _times(services, "python, openvino, tokenizer"),
        ),
        _item("graph", services * graph, _times(services, f"{inputs.spec.num_layers} layers compiled")),
    ]


def serve_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """Full load: every block of the KV pool touched, the largest step, the largest batch; times the services."""
    spec, toolchain, services = inputs.spec, inputs.toolchain, inputs.services
    blocks = num_blocks(inputs.kv_cache_tokens, toolchain.tokens_per_block)
    block_bytes = kv_cache_bytes_per_block(spec, inputs.kv, toolchain.tokens_per_block, inputs.tp_size)
    activations = activation_bytes_per_token(spec) * inputs.max_num_tokens
    return [
        *load_items(inputs),
        *_weight_items(inputs),
        _item("KV cache", services * blocks * block_bytes, _times(services, f"{blocks} blocks x {block_bytes} B")),
        _item(
            "activations",
            services * activations,
            _times(services, f"{inputs.max_num_tokens} tokens x {activation_bytes_per_token(spec)} B"),
        ),
        _item(
            "logits",
            services * logits_bytes(spec, inputs.max_batch_size),
            _times(services, f"2 x {inputs.max_batch_size} sequences x {spec.vocab_size} x 4 B"),
        ),
        _item("work space", services * toolchain.memory["workspace_bytes"], _times(services, "allocator, threads")),
    ]


def engine_file_bytes(inputs: MemoryInputs) -> int:
    """Bytes of the engine's weight file: matrices in their format with float32 scales, ends as stored."""
    spec = inputs.spec
    float_bytes = BYTES_OF_DTYPE[inputs.dtype]
    matrices = linear_bytes(spec, inputs.weights, inputs.group_size, float_bytes=float_bytes, scale_bytes=FLOAT32_BYTES)
    return matrices + spec.num_embedding_parameters * float_bytes + num_small_parameters(spec) * FLOAT32_BYTES


def _weight_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """The engine packs each matrix twice, for steps of one row and of many; the embedding table stays in the file."""
    spec, services = inputs.spec, inputs.services
    copies, head_copies = inputs.toolchain.memory["packed_copies"], inputs.toolchain.memory["packed_head_copies"]
    float_bytes = BYTES_OF_DTYPE[inputs.dtype]
    one = linear_bytes(spec, inputs.weights, inputs.group_size, float_bytes=float_bytes, scale_bytes=FLOAT32_BYTES)
    head = spec.vocab_size * spec.hidden_size * float_bytes
    return [
        _item("weights", services * copies * one, _times(services, f"{copies} packed copies x {one} B")),
        _item("output head", services * head_copies * head, _times(services, f"{head_copies} packed copy x {head} B")),
    ]


def _checkpoint_bytes(inputs: MemoryInputs) -> int:
    return checkpoint_bytes(inputs.spec, inputs.weights, inputs.group_size, inputs.dtype)


def _item(name: str, num_bytes: int, formula: str) -> MemoryItem:
    return MemoryItem(name=name, num_bytes=num_bytes, formula=formula)


def _times(services: int, formula: str) -> str:
    return formula if services == 1 else f"{services} services x ({formula})"
