"""Memory of the quantize stage for GPUs: streaming needs no card; calibration runs on it, whole or layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.memory.formulas import BYTES_OF_DTYPE, num_small_parameters
from scalellm_trt.memory.types import MemoryItem
from scalellm_trt.memory.weights import one_layer_bytes

if TYPE_CHECKING:
    from scalellm_trt.memory.types import MemoryInputs

LAYER_COPIES = 3  # the layer, its quantized twin, and the scaled copy that AWQ's search compares with


def device_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """Return what calibration holds on the card: the whole model, else one layer at a time; nothing when streaming."""
    if not inputs.weights.is_calibrated:
        return []
    whole = _whole(inputs)
    return whole if _sum(whole) <= (inputs.hardware.memory_bytes or 0) else _layer_wise(inputs)


def margin(inputs: MemoryInputs) -> MemoryItem:
    """Return what a plan leaves alone on the card, by the hardware's row."""
    return _item("margin (estimate)", inputs.hardware.reserved_bytes, "cuBLAS handles, fragmentation, a display")


def is_layer_wise(inputs: MemoryInputs) -> bool:
    """Tell whether the model is too large to be calibrated on the card in one piece."""
    return any(item.name.startswith("one layer") for item in device_items(inputs))


def host_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """Return what the stage holds in host memory: a few chunks, or the model (its files are mapped layer by layer)."""
    figures = inputs.toolchain.memory
    if not inputs.weights.is_calibrated:
        return [
            _item("python", figures["stream_process_bytes"], "interpreter, numpy"),
            _item("chunks", figures["stream_buffer_bytes"], "a piece of a tensor and its conversions"),
        ]
    process = _item(
        "python (estimate)", figures["calibrate_process_bytes"], "interpreter, torch, transformers, ModelOpt"
    )
    if not is_layer_wise(inputs):
        return [process, _item("model", _model_bytes(inputs), f"{inputs.dtype}, on its way to the card")]
    hidden = 2 * inputs.calibration_tokens * inputs.spec.hidden_size * BYTES_OF_DTYPE[inputs.dtype]
    return [
        process,
        _item("hidden states", hidden, f"2 x {inputs.calibration_tokens} tokens x hidden_size, between layers"),
        _item("packed layers", _model_bytes(inputs) // 2, "what is quantized already, until it is written"),
    ]


def _whole(inputs: MemoryInputs) -> list[MemoryItem]:
    return [
        _item("CUDA context (estimate)", inputs.toolchain.memory["cuda_context_bytes"], "one process"),
        _item("model", _model_bytes(inputs), f"all weights in {inputs.dtype}"),
        _item("search (estimate)", _work_bytes(inputs), "copies of one layer, activations of a batch"),
        margin(inputs),
    ]


def _layer_wise(inputs: MemoryInputs) -> list[MemoryItem]:
    ends = inputs.spec.num_embedding_parameters * BYTES_OF_DTYPE[inputs.dtype]
    return [
        _item("CUDA context (estimate)", inputs.toolchain.memory["cuda_context_bytes"], "one process"),
        _item("embedding and lm_head", ends, f"in {inputs.dtype}"),
        _item("one layer at a time (estimate)", _work_bytes(inputs), "the model does not fit: layer-wise calibration"),
        margin(inputs),
    ]


def _work_bytes(inputs: MemoryInputs) -> int:
    return LAYER_COPIES * one_layer_bytes(inputs.spec, inputs.dtype) + inputs.toolchain.memory["calibrate_device_bytes"]


def _model_bytes(inputs: MemoryInputs) -> int:
    spec = inputs.spec
    parameters = spec.num_linear_parameters + spec.num_embedding_parameters + num_small_parameters(spec)
    return parameters * BYTES_OF_DTYPE[inputs.dtype]


def _sum(items: list[MemoryItem]) -> int:
    return sum(item.num_bytes for item in items)


def _item(name: str, num_bytes: int, formula: str) -> MemoryItem:
    return MemoryItem(name=name, num_bytes=num_bytes, formula=formula)
