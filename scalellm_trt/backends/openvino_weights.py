"""A checkpoint's tensors as OpenVINO constants: 16-bit as they are, 8- and 4-bit compressed with their scales.

Nothing is widened here: a constant is followed by the operations that turn it into float32, and the CPU plugin runs
them inside its matrix multiplication. Nothing stays in anonymous memory either: constants are views of the checkpoint's
file, or of a scratch file that holds what was quantized here.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalellm_trt.checkpoint.layout import LM_HEAD, VOCAB_EMBEDDING
from scalellm_trt.checkpoint.reader import FullLinear, Int4Linear, Int8Linear
from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from scalellm_trt.backends.openvino_graph import Node
    from scalellm_trt.checkpoint.dtypes import FloatArray
    from scalellm_trt.checkpoint.reader import CheckpointReader

_ELEMENT_TYPES: Final = {"F16": "f16", "BF16": "bf16", "F32": "f32"}


class CheckpointWeights:
    """The `DecoderWeights` of a TensorRT-LLM checkpoint.

    OpenVINO's constants point into the arrays given to them, so every array is kept here. Use as a context manager
    around building and saving the model: leaving it frees the scratch file.
    """

    def __init__(
        self, reader: CheckpointReader, scratch_dir: Path, on_matrix: Callable[[str], None] = lambda prefix: None
    ) -> None:
        """Take the reader and a directory with room for the quantized weights.

        `on_matrix` is called with each matrix's prefix before it is read.

        Raises:
            OSError: no file can be made in `scratch_dir`.
        """
        self._reader = reader
        self._on_matrix = on_matrix
        self._buffers: list[NDArray[Any]] = []
        # A file without a name: the system removes it even when the process is killed.
        self._scratch = tempfile.TemporaryFile(dir=scratch_dir)  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> CheckpointWeights:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of all arrays; constants made from them must not be used any more."""
        self._buffers.clear()
        self._scratch.close()

    def linear(self, x: Node, prefix: str) -> Node:
        """See `DecoderWeights.linear`; AWQ's pre-quantization scale multiplies `x`."""
        from openvino import opset13 as ops

        self._on_matrix(prefix)
        if prefix == LM_HEAD and self._reader.config.spec.tie_word_embeddings:
            # The file holds the same values twice; one name lets the compiled model hold them once.
            return ops.matmul(x, self._stored_matrix(VOCAB_EMBEDDING), False, True)
        linear = self._reader.linear(prefix)
        if isinstance(linear, FullLinear):
            matrix = self._stored_matrix(prefix)
        elif isinstance(linear, Int8Linear):
            matrix = self._int8_matrix(linear)
        elif isinstance(linear, Int4Linear):
            matrix = self._int4_matrix(linear)
            if linear.prequant is not None:
                x = ops.multiply(x, ops.constant(_float32(linear.prequant)))
        else:
            message = f"{self._reader.config.quant_algo} quantizes activations, which this backend does not compile"
            hint = "Allowed: full_prec, int8_wo, int4_wo, int4_awq."
            raise UnsupportedError([Problem(key="quantization.weights", message=message, hint=hint)])
        product = ops.matmul(x, matrix, False, True)
        return product if linear.bias is None else ops.add(product, ops.constant(_float32(linear.bias)))

    def embedding(self, token_ids: Node) -> Node:
        """See `DecoderWeights.embedding`."""
        from openvino import opset13 as ops

        self._on_matrix(VOCAB_EMBEDDING)
        return ops.gather(self._stored_matrix(VOCAB_EMBEDDING), token_ids, np.int64(0))

    def norm(self, prefix: str) -> NDArray[np.float32]:
        """See `DecoderWeights.norm`."""
        return _float32(self._reader.tensor(f"{prefix}.weight"))

    def _stored_matrix(self, prefix: str) -> Node:
        """Return a matrix as the file has it, widened to f32 by an operation."""
        from openvino import opset13 as ops

        name = f"{prefix}.weight"
        array, dtype = self._reader.file.raw(name), self._reader.file.dtype(name)
        constant = self._constant(array, _ELEMENT_TYPES[dtype], array.shape)
        return constant if dtype == "F32" else ops.convert(constant, "f32")

    def _int8_matrix(self, linear: Int8Linear) -> Node:
        """Return values (out, in) times scales (out, 1)."""
        from openvino import opset13 as ops

        weight = self._constant(self._spooled(linear.values), "i8", linear.values.shape)
        return ops.multiply(ops.convert(weight, "f32"), ops.constant(linear.scales[:, None]))

    def _int4_matrix(self, linear: Int4Linear) -> Node:
        """Return values times scales, one per output channel, or per group of neighbours within it."""
        from openvino import opset13 as ops

        (rows, columns), packed = linear.shape, self._spooled(linear.packed)
        if linear.group_size == columns:
            weight = ops.convert(self._constant(packed, "i4", (rows, columns)), "f32")
            return ops.multiply(weight, ops.constant(linear.scales))
        grouped = (rows, columns // linear.group_size, linear.group_size)
        weight = ops.convert(self._constant(packed, "i4", grouped), "f32")
        weight = ops.multiply(weight, ops.constant(linear.scales[:, :, None]))
        return ops.reshape(weight, np.array([rows, columns], np.int64), False)

    def _constant(self, array: NDArray[Any], element_type: str, shape: tuple[int, ...]) -> Node:
        """Return a constant of `shape` over the memory of `array`, whose bytes are elements of `element_type`."""
        import openvino as ov
        from openvino import opset13 as ops

        self._buffers.append(array)
        tensor = ov.Tensor(array, ov.Shape(list(shape)), getattr(ov.Type, element_type))
        return ops.constant(tensor, shared_memory=True)

    def _spooled(self, array: NDArray[Any]) -> NDArray[Any]:
        """Move `array` to the scratch file and return a view of it there."""
        start = self._scratch.tell()
        np.ascontiguousarray(array).tofile(self._scratch)
        self._scratch.flush()
        return np.memmap(self._scratch, array.dtype, "r", start, array.shape)


def _float32(values: FloatArray) -> NDArray[np.float32]:
    return values.astype(np.float32, copy=False)
