"""Budgets of the GPU backends: one rank's device memory, host memory and disk of quantize, compile, load and serve.

The figures that no formula gives stand in data/toolchains.yaml under `memory`, each with its source; nobody measured
them for this model, so they are estimates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.memory import calibration
from scalellm_trt.memory.formulas import kv_cache_bytes_per_block, num_blocks
from scalellm_trt.memory.types import MemoryBudget, MemoryItem
from scalellm_trt.memory.weights import Shard, tensor_groups, total_bytes

if TYPE_CHECKING:
    from scalellm_trt.memory.types import MemoryInputs, Place, Stage
    from scalellm_trt.memory.weights import TensorGroup
    from scalellm_trt.model_spec import ModelSpec

FUSED_ATTENTION_SINCE = (8, 0)  # compute capability; tensorrt-llm: Turing has no fused context attention kernels

LARGEST_FREE_PERCENT = 99  # of free memory that an engine may be told to take for its pool: the fraction is below 1


def budgets(inputs: MemoryInputs) -> tuple[MemoryBudget, ...]:
    """Return the budgets of the four stages on the device, in host memory and on disk.

    Host memory and disk are this machine's: they only warn where it has no GPU, for then the build runs elsewhere.
    """
    is_elsewhere = not inputs.machine.gpus
    places: dict[Place, int] = {
        "device": usable_device_bytes(inputs),
        "host": inputs.machine.memory_total_bytes,
        "disk": inputs.machine.disk_free_bytes,
    }

    def budget(stage: Stage, place: Place, items: list[MemoryItem]) -> MemoryBudget:
        return MemoryBudget(
            stage=stage,
            place=place,
            items=tuple(items),
            available_bytes=places[place],
            is_advisory=is_elsewhere and place != "device",
        )

    return (
        *(budget("quantize", "device", items) for items in [calibration.device_items(inputs)] if items),
        *(budget("compile", "device", items) for items in [compile_device_items(inputs)] if items),
        budget("load", "device", load_device_items(inputs)),
        budget("serve", "device", serve_device_items(inputs)),
        budget("quantize", "host", calibration.host_items(inputs)),
        budget("compile", "host", compile_host_items(inputs)),
        budget("load", "host", load_host_items(inputs)),
        budget("serve", "host", serve_host_items(inputs)),
        budget("quantize", "disk", calibration.disk_items(inputs)),
        budget("compile", "disk", compile_disk_items(inputs)),
    )


def usable_device_bytes(inputs: MemoryInputs) -> int:
    """Bytes of one card, as its driver reports them; the margin is an item of the budgets."""
    return inputs.hardware.memory_bytes or 0


def kv_block_bytes(inputs: MemoryInputs) -> int:
    """Bytes of one block of the paged cache on one rank."""
    return kv_cache_bytes_per_block(
        inputs.spec, inputs.kv, inputs.toolchain.tokens_per_block, inputs.tp_size, inputs.pp_size
    )


def kv_tokens_that_fit(inputs: MemoryInputs) -> int:
    """Return the KV pool of one service, in tokens of whole blocks, that the rest of the card holds; may be 0.

    An engine takes at most a fraction below 1 of what is free when it loads, which the margin is part of.
    """
    rest = sum(item.num_bytes for item in serve_device_items(inputs) if item.name != "KV cache")
    left = max(0, usable_device_bytes(inputs) - rest) // inputs.services
    left = min(left, (left + inputs.hardware.reserved_bytes) * LARGEST_FREE_PERCENT // 100)
    return left // kv_block_bytes(inputs) * inputs.toolchain.tokens_per_block


def compile_device_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """The builder holds the whole engine of a rank on the card, and runs candidate kernels beside it.

    Source: tensorrt-llm memory.md and issue 346 (13B in 16 bits: a 24.8 GB weight buffer while it builds).
    """
    if not _has_engine(inputs):
        return []
    return [
        _context(inputs),
        *weight_items(inputs, services=1),
        _activations(inputs, services=1),
        *_attention_workspace(inputs, services=1),
        _item(
            "kernel search (estimate)", inputs.toolchain.memory["build_workspace_bytes"], "candidates run side by side"
        ),
        calibration.margin(inputs),
    ]


def load_device_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """What an idle server holds: everything but the margin, for pools and buffers are taken while it loads.

    All services live in one process and share its CUDA context; each loads the engine for itself.
    """
    services = inputs.services
    blocks = num_blocks(inputs.kv_cache_tokens, inputs.toolchain.tokens_per_block)
    block_bytes = kv_block_bytes(inputs)
    return [
        _context(inputs),
        *weight_items(inputs, services),
        _item("KV cache", services * blocks * block_bytes, _times(services, f"{blocks} blocks x {block_bytes} B")),
        _activations(inputs, services),
        *_attention_workspace(inputs, services),
        *_runtime_items(inputs, services),
        *_communication(inputs),
    ]


def serve_device_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """What a loaded server may reach: an idle one, and the margin."""
    return [*load_device_items(inputs), calibration.margin(inputs)]


def weight_items(inputs: MemoryInputs, services: int) -> list[MemoryItem]:
    """Return one item per group of tensors, and one for all scales."""
    groups = _groups(inputs)
    items = []
    for group in groups:
        formula = f"{group.num_elements} weights in {inputs.weights.weights if group.is_quantized else inputs.dtype}"
        items.append(_item(f"weights: {group.name}", services * group.num_bytes, _times(services, formula)))
    scales = sum(group.num_scale_bytes for group in groups)
    if scales:
        formula = f"{inputs.weights.scales.replace('_', ' ')}, 16-bit"
        items.append(_item("weights: scales", services * scales, _times(services, formula)))
    return items


def compile_host_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """The builder holds TensorRT's copy of the weights and the serialized plan; the checkpoint's files are mapped.

    Ranks are built one after the other. Arithmetic from the source of TensorRT-LLM 1.x, nobody measured it.
    """
    figures = inputs.toolchain.memory
    if not _has_engine(inputs):
        return [_item("python (estimate)", figures["build_host_bytes"], "nothing is compiled: settings are written")]
    engine = total_bytes(_groups(inputs))
    return [
        _item("python and builder (estimate)", figures["build_host_bytes"], "interpreter, TensorRT, tactics' log"),
        _item("constants", engine, "the engine's weights as TensorRT holds them"),
        _item("serialized engine", engine, "the plan before it is written"),
    ]


def load_host_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """An engine's file is read into memory before it goes to the card; one at a time, ranks at once."""
    world_size = inputs.tp_size * inputs.pp_size
    engine = total_bytes(_groups(inputs)) * world_size
    return [
        _item(
            "tritonserver (estimate)",
            world_size * inputs.toolchain.memory["server_host_bytes"],
            f"{world_size} rank(s): CUDA, TensorRT, python text model",
        ),
        _item("engine file", engine, f"read before it is on the card, {world_size} rank(s)"),
    ]


def serve_host_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """Once loaded, the engine's file is no longer held."""
    return load_host_items(inputs)[:1]


def compile_disk_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """An engine file per rank is about as large as its weights."""
    if not _has_engine(inputs):
        return [_item("settings", inputs.toolchain.tokens_per_block, "no engine is written")]
    world_size = inputs.tp_size * inputs.pp_size
    return [
        _item("engine", total_bytes(_groups(inputs)) * world_size, f"weights in their format, {world_size} rank(s)")
    ]


def activation_bytes_per_token(spec: ModelSpec, percent: int) -> int:
    """Bytes of intermediate results of one token of a step, in 16 bits.

    Formula: 2 * (3 * intermediate_size * experts per token + 8 * hidden_size) * percent / 100. Against logged
    execution contexts, with percent 140: Qwen2.5-7B 240 kB (logged 256 and 237), Llama-7B 184 kB (logged 145).
    Source: TensorRT-LLM issue 2330 and docs/source/reference/memory.md.
    """
    intermediate = spec.intermediate_size * max(1, spec.num_experts_per_token)
    return 2 * (3 * intermediate + 8 * spec.hidden_size) * percent // 100


def attention_workspace_bytes(spec: ModelSpec, max_batch_size: int, max_input_len: int, tp_size: int) -> int:
    """Bytes of the QK buffer where context attention is not fused: 16-bit products and their float32 copy.

    Formula: max_batch_size * heads * max_input_len^2 * (2 + 4). Llama-2-13B: 0.23 GiB per sequence of 1,024 tokens,
    3.5 GiB of 3,968. Source: TensorRT-LLM attentionOp.cpp, getWorkspaceSizeForContext.
    """
    heads = -(-spec.num_heads // tp_size)
    return max_batch_size * heads * max_input_len * max_input_len * 6


def decoder_bytes(spec: ModelSpec, max_batch_size: int, max_seq_len: int) -> int:
    """Bytes of sampling buffers and ids: max_batch_size * (16 * vocab_size + 12 * max_seq_len).

    Logged: 5.76 GB for 2,048 sequences of 32,768 tokens and a vocabulary of 151,936 (formula: 5.78 GB).
    Source: TensorRT-LLM issue 1188.
    """
    return max_batch_size * (16 * spec.vocab_size + 12 * max_seq_len)


def runtime_bytes(spec: ModelSpec, max_batch_size: int, max_seq_len: int) -> int:
    """Bytes of logits and step inputs: max_batch_size * (8 * vocab_size + 4 * max_seq_len).

    Logged: 2.66 GB for 2,048 sequences of 32,768 tokens and a vocabulary of 151,936 (formula: 2.76 GB).
    Source: TensorRT-LLM issue 1188.
    """
    return max_batch_size * (8 * spec.vocab_size + 4 * max_seq_len)


def has_fused_attention(compute_capability: str | None) -> bool:
    """Tell whether the card has fused kernels for context attention."""
    if compute_capability is None:
        return False
    major, _, minor = compute_capability.partition(".")
    return (int(major), int(minor or 0)) >= FUSED_ATTENTION_SINCE


def _groups(inputs: MemoryInputs) -> tuple[TensorGroup, ...]:
    shard = Shard(tp_size=inputs.tp_size, pp_size=inputs.pp_size)
    return tensor_groups(inputs.spec, inputs.weights, inputs.group_size, inputs.dtype, shard)


def _has_engine(inputs: MemoryInputs) -> bool:
    return inputs.toolchain.engine_kind == "trt_engine"


def _context(inputs: MemoryInputs) -> MemoryItem:
    return _item("CUDA context (estimate)", inputs.toolchain.memory["cuda_context_bytes"], "one process for all")


def _activations(inputs: MemoryInputs, services: int) -> MemoryItem:
    per_token = activation_bytes_per_token(inputs.spec, inputs.toolchain.memory["activation_percent"])
    formula = f"{inputs.max_num_tokens} tokens x {per_token} B"
    return _item(
        "activations (estimate)",
        services * inputs.max_num_tokens * per_token // inputs.tp_size,
        _times(services, formula),
    )


def _attention_workspace(inputs: MemoryInputs, services: int) -> list[MemoryItem]:
    if has_fused_attention(inputs.hardware.compute_capability):
        return []
    num_bytes = attention_workspace_bytes(inputs.spec, inputs.max_batch_size, inputs.max_input_len, inputs.tp_size)
    formula = f"unfused: {inputs.max_batch_size} x {inputs.spec.num_heads} heads x {inputs.max_input_len}^2 x 6 B"
    return [_item("attention workspace", services * num_bytes, _times(services, formula))]


def _runtime_items(inputs: MemoryInputs, services: int) -> list[MemoryItem]:
    spec, batch, length = inputs.spec, inputs.max_batch_size, inputs.max_seq_len
    base = inputs.toolchain.memory["runtime_base_bytes"]
    runtime, decoder = runtime_bytes(spec, batch, length), decoder_bytes(spec, batch, length)
    return [
        _item(
            "runtime buffers (estimate)",
            services * (base + runtime),
            _times(services, f"{base} B + {batch} sequences x (8 x vocab_size + 4 x max_seq_len)"),
        ),
        _item(
            "decoder (estimate)",
            services * decoder,
            _times(services, f"{batch} sequences x (16 x vocab_size + 12 x max_seq_len)"),
        ),
    ]


def _communication(inputs: MemoryInputs) -> list[MemoryItem]:
    """NCCL's buffers, by the number of ranks. Source: aiconfigurator systems/*.yaml: 342 MB for 2, 392 MB above."""
    world_size = inputs.tp_size * inputs.pp_size
    if world_size == 1:
        return []
    figures = inputs.toolchain.memory
    num_bytes = figures["nccl_2_bytes"] if world_size == 2 else figures["nccl_more_bytes"]
    return [_item("NCCL (estimate)", inputs.services * num_bytes, f"{world_size} ranks")]


def _item(name: str, num_bytes: int, formula: str) -> MemoryItem:
    return MemoryItem(name=name, num_bytes=num_bytes, formula=formula)


def _times(services: int, formula: str) -> str:
    return formula if services == 1 else f"{services} services x ({formula})"
