"""Any checkpoint directory in, its tensors and its linears out, as numpy arrays and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.dtypes import FloatArray, RawArray, round_to, to_float32
from scalellm_trt.checkpoint.layout import quantized_linears, require_single_rank
from scalellm_trt.checkpoint.packing import pack_columns, unpack_columns, unpack_rows
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.checkpoint.weight_only import native_quantize
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FullLinear:
    """`y = x @ weight.T + bias`."""

    weight: FloatArray  # (out, in) float16 or float32
    bias: FloatArray | None  # (out,)

    def dequantize(self) -> NDArray[np.float32]:
        """Return the weight as float32 (out, in)."""
        return self.weight.astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Int8Linear:
    """`y = x @ (values * scales[:, None]).T + bias`."""

    values: NDArray[np.int8]  # (out, in)
    scales: NDArray[np.float32]  # (out,), each exact in the checkpoint's dtype
    bias: FloatArray | None  # (out,)

    def dequantize(self) -> NDArray[np.float32]:
        """Return the weight as float32 (out, in)."""
        return np.multiply(self.values, self.scales[:, None], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Int4Linear:
    """`y = (x * prequant) @ w.T + bias` with `w[o, i] = values[o, i] * scales[o, i // group_size]`."""

    packed: NDArray[np.uint8]  # (out, in / 2): signed 4-bit values, even column in the low nibble
    scales: NDArray[np.float32]  # (out, in / group_size), each exact in the checkpoint's dtype
    prequant: FloatArray | None  # (in,)
    bias: FloatArray | None  # (out,)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.packed.shape[0], 2 * self.packed.shape[1]

    @property
    def group_size(self) -> int:
        """Columns that share one scale: all of them where the scale belongs to the output channel."""
        return self.shape[1] // self.scales.shape[1]

    def dequantize(self) -> NDArray[np.float32]:
        """Return float32 (out, in) with the factor `prequant` of each column included, so that `y = x @ w.T + bias`."""
        out_size, in_size = self.shape
        grouped = unpack_columns(self.packed).reshape(out_size, -1, self.group_size)
        weight = np.multiply(grouped, self.scales[:, :, None], dtype=np.float32).reshape(out_size, in_size)
        return weight if self.prequant is None else np.multiply(weight, self.prequant, dtype=np.float32)


LinearWeight: TypeAlias = FullLinear | Int8Linear | Int4Linear


class CheckpointReader:
    """A checkpoint on disk. Arrays that need no conversion are read-only views of the file and cost no memory."""

    def __init__(self, directory: Path) -> None:
        """Read the config and the file's header, no weights.

        Raises:
            ArtefactError: a file is missing or damaged.
            UnsupportedError: a format, model or number of ranks that we do not have.
        """
        self.directory = directory
        self.config = checkpoint_config.read(directory)
        require_single_rank(self.config)
        self.file = TensorFile(directory / "rank0.safetensors")
        self._quantized = frozenset(quantized_linears(self.config.spec))

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        return tuple(self.file.entries)

    def tensor(self, name: str) -> RawArray:
        """Return a tensor: float16, float32, int8 or uint8 as stored; bfloat16 and float8 as float32.

        Raises:
            ArtefactError: there is no such tensor, or its element type is unknown.
        """
        if name not in self.file.entries:
            message = f"{self.file.path}: tensor {name} is missing"
            raise ArtefactError(message, hint="Build the checkpoint again.")
        dtype, raw = self.file.dtype(name), self.file.raw(name)
        return to_float32(raw, dtype) if dtype in ("BF16", "F8_E4M3") else raw

    def linear(self, prefix: str) -> LinearWeight:
        """Return the linear `prefix` (such as `transformer.layers.0.attention.qkv` or `lm_head`) as a compiler uses it.

        Weights of W8A16 and W4A16 checkpoints, which are stored in 16 bits, are quantized here by `native_quantize`.

        Raises:
            ArtefactError: a tensor is missing or its element type is unknown.
        """
        weight = self.tensor(f"{prefix}.weight")
        bias = self.tensor(f"{prefix}.bias") if f"{prefix}.bias" in self.file.entries else None
        algo = self.config.quant_algo if prefix in self._quantized else None
        if algo is None:
            return FullLinear(weight=weight, bias=bias)
        if algo == "W8A16":
            values, scales = native_quantize(weight, 8, self.config.dtype)
            return Int8Linear(values=values, scales=scales, bias=bias)
        if algo == "W4A16":
            values, scales = native_quantize(weight, 4, self.config.dtype)
            return Int4Linear(packed=pack_columns(values), scales=scales[:, None], prequant=None, bias=bias)
        return Int4Linear(
            packed=pack_columns(unpack_rows(weight)),
            scales=round_to(self.tensor(f"{prefix}.weights_scaling_factor"), self.config.dtype),
            prequant=self.tensor(f"{prefix}.prequant_scaling_factor"),
            bias=bias,
        )

    def dequantize(self, prefix: str) -> NDArray[np.float32]:
        """Return the weight of the linear `prefix` as float32 (out, in): what the format left of it."""
        return self.linear(prefix).dequantize()
