"""Memory and disk of the quantize stage: streaming holds chunks; calibration goes layer by layer, on the card.

What calibration holds is what `checkpoint.layerwise` does: one decoder layer and one batch on the device, whatever the
model's size; embeddings are read from the model's files row by row, hidden states and packed layers lie on the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalellm_trt.memory.formulas import BYTES_OF_DTYPE, activation_bytes_per_token, checkpoint_bytes
from scalellm_trt.memory.types import MemoryItem
from scalellm_trt.memory.weights import one_layer_bytes

if TYPE_CHECKING:
    from scalellm_trt.memory.types import MemoryInputs
    from scalellm_trt.model_spec import ModelSpec

BATCH_TOKENS: Final = 2048
"""Tokens of a calibration batch, in samples of equal length; a longer sample is a batch of its own."""

LAYER_COPIES: Final = 3  # the layer, what AWQ's search scales and quantizes of it, and what ModelOpt exports
HOST_LAYER_COPIES: Final = 2  # as it is read, and as it is written after its export


def is_calibrated(inputs: MemoryInputs) -> bool:
    """Tell whether the model is run over text: for its weights' format, or for the scales of an 8-bit KV cache."""
    return inputs.calibration_tokens > 0


def device_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """Return what calibration holds on the card; nothing when weights are converted as a stream.

    Formula: context + 3 * layer + activations of a batch + libraries' work space + margin.
    """
    if not is_calibrated(inputs):
        return []
    figures = inputs.toolchain.memory
    return [
        _item("CUDA context (estimate)", figures["cuda_context_bytes"], "one process"),
        *_layer_items(inputs, inputs.dtype),
        _item("libraries (estimate)", figures["calibrate_device_bytes"], "cuBLAS, torch's allocator"),
        margin(inputs),
    ]


def margin(inputs: MemoryInputs) -> MemoryItem:
    """Return what a plan leaves alone on the card, by the hardware's row."""
    return _item("margin (estimate)", inputs.hardware.reserved_bytes, "cuBLAS handles, fragmentation, a display")


def host_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """Return what the stage holds in host memory; pages of mapped files are not counted, the kernel drops them.

    Where there is no card in the plan, the layer is calibrated here, in float32.
    """
    figures = inputs.toolchain.memory
    if not is_calibrated(inputs):
        return [
            _item("python", figures["stream_process_bytes"], "interpreter, numpy"),
            _item("chunks", figures["stream_buffer_bytes"], "a piece of a tensor and its conversions"),
        ]
    libraries = "interpreter, torch, transformers, ModelOpt"
    process = _item("python (estimate)", figures["calibrate_process_bytes"], libraries)
    if inputs.hardware.kind == "cpu":
        return [process, *_layer_items(inputs, "float32")]
    layer = one_layer_bytes(inputs.spec, inputs.dtype)
    text = f"{HOST_LAYER_COPIES} x {layer} B: read before it goes to the card, written after its export"
    return [process, _item("one layer (estimate)", HOST_LAYER_COPIES * layer, text)]


def disk_items(inputs: MemoryInputs) -> list[MemoryItem]:
    """Return what the stage writes; all but the checkpoint is removed at its end.

    Hidden states: passes * calibration tokens * hidden_size elements; AWQ's search is a second pass.
    """
    size = checkpoint_bytes(inputs.spec, inputs.weights, inputs.group_size, inputs.dtype)
    checkpoint = _item("checkpoint", size, "tensors at rest, all ranks")
    if not is_calibrated(inputs):
        return [checkpoint]
    dtype = "float32" if inputs.hardware.kind == "cpu" else inputs.dtype
    passes = 2 if inputs.weights.scales == "per_group" else 1
    hidden = passes * inputs.calibration_tokens * inputs.spec.hidden_size * BYTES_OF_DTYPE[dtype]
    formula = f"{passes} x {inputs.calibration_tokens} tokens x {inputs.spec.hidden_size} in {dtype}"
    return [
        checkpoint,
        _item("exported layers", size, "as ModelOpt writes them, until the checkpoint is put together"),
        _item("hidden states", hidden, formula),
    ]


def batch_tokens(inputs: MemoryInputs) -> int:
    """Tokens that run at once: whole samples up to `BATCH_TOKENS`, at least one."""
    return min(inputs.calibration_tokens, max(BATCH_TOKENS, inputs.calibration_sample_tokens))


def activation_bytes(spec: ModelSpec, num_tokens: int, dtype: str) -> int:
    """Bytes of a batch's intermediate results in one layer, with the search's comparison.

    Formula: per token (3 * intermediate_size * experts per token + 8 * hidden_size) elements, and 3 float32 of the
    widest result: what a linear gives, what it gives quantized, and their squared difference
    (modelopt.torch.quantization.model_calib, awq_lite).
    """
    experts = max(1, spec.num_experts_per_token)
    per_token = activation_bytes_per_token(spec) // 4 + 3 * (experts - 1) * spec.intermediate_size
    widest = max(spec.intermediate_size, spec.hidden_size)
    return num_tokens * (per_token * BYTES_OF_DTYPE[dtype] + 3 * widest * BYTES_OF_DTYPE["float32"])


def _layer_items(inputs: MemoryInputs, dtype: str) -> list[MemoryItem]:
    layer, tokens = one_layer_bytes(inputs.spec, dtype), batch_tokens(inputs)
    copies = f"{LAYER_COPIES} x {layer} B in {dtype}: the layer, its search, its export"
    return [
        _item("one layer (estimate)", LAYER_COPIES * layer, copies),
        _item("batch (estimate)", activation_bytes(inputs.spec, tokens, dtype), f"activations of {tokens} tokens"),
    ]


def _item(name: str, num_bytes: int, formula: str) -> MemoryItem:
    return MemoryItem(name=name, num_bytes=num_bytes, formula=formula)
