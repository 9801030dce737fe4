"""Any checkpoint directory in, its tensors and its linears out, as numpy arrays and without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from scalellm_trt.checkpoint import config as checkpoint_config
from scalellm_trt.checkpoint.config import GROUPED_ALGOS, NATIVE_ALGOS
from scalellm_trt.checkpoint.dtypes import FloatArray, RawArray, round_to, to_float32
from scalellm_trt.checkpoint.layout import quantized_linears
from scalellm_trt.checkpoint.packing import pack_columns, unpack_columns, unpack_rows
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.checkpoint.weight_only import native_quantize
from scalellm_trt.errors import ArtefactError, Problem, UnsupportedError

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SmoothedLinear:
    """`y = (x * prequant) @ (values * scales[:, None]).T + bias`, with the input quantized to 8 bits on the way."""

    values: NDArray[np.int8]  # (out, in)
    scales: NDArray[np.float32]  # (out,)
    prequant: FloatArray  # (in,)
    activation_scale: float  # input amax / 127, after prequant
    bias: FloatArray | None  # (out,)

    def dequantize(self) -> NDArray[np.float32]:
        """Return float32 (out, in) with the factor `prequant` of each column included."""
        weight = np.multiply(self.values, self.scales[:, None], dtype=np.float32)
        return np.multiply(weight, self.prequant, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fp8Linear:
    """`y = x @ (values * scale).T + bias`, with the input rounded to E4M3 on the way."""

    values: NDArray[np.float32]  # (out, in), each an E4M3 number
    scale: float
    activation_scale: float  # input amax / 448
    bias: FloatArray | None  # (out,)

    def dequantize(self) -> NDArray[np.float32]:
        """Return the weight as float32 (out, in)."""
        return self.values * np.float32(self.scale)


LinearWeight: TypeAlias = FullLinear | Int8Linear | Int4Linear | SmoothedLinear | Fp8Linear


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
        split = (("tp_size", self.config.tp_size), ("pp_size", self.config.pp_size))
        if problems := [
            Problem(key=f"parallel.{key}", message=f"the files of {size} ranks are not one model", hint="Use 1.")
            for key, size in split
            if size != 1
        ]:
            raise UnsupportedError(problems)
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

    def linear(self, prefix: str, expert: int | None = None) -> LinearWeight:
        """Return the linear `prefix` (such as `transformer.layers.0.attention.qkv` or `lm_head`) as a compiler uses it.

        Weights of W8A16 and W4A16 checkpoints, which are stored in 16 bits, are quantized here by `native_quantize`.

        Args:
            prefix: the linear.
            expert: which one, where the linear is a stack of experts'.

        Raises:
            ArtefactError: a tensor is missing or its element type is unknown.
        """

        def part(name: str) -> RawArray:
            tensor = self.tensor(f"{prefix}.{name}")
            return tensor if expert is None or len(tensor) == 1 else tensor[expert]

        weight = part("weight")
        bias = self.tensor(f"{prefix}.bias") if f"{prefix}.bias" in self.file.entries else None
        algo = self.config.quant_algo if prefix in self._quantized else None
        if algo is None:
            return FullLinear(weight=weight, bias=bias)
        if algo in NATIVE_ALGOS:
            return self._native(weight, bias)
        scales = part("weights_scaling_factor")
        if algo in GROUPED_ALGOS:
            return Int4Linear(
                packed=pack_columns(unpack_rows(weight)),
                scales=round_to(scales, self.config.dtype),
                prequant=part("prequant_scaling_factor"),
                bias=bias,
            )
        activation_scale = float(self.tensor(f"{prefix}.activation_scaling_factor")[0])
        if algo == "FP8":
            return Fp8Linear(values=weight, scale=float(scales[0]), activation_scale=activation_scale, bias=bias)
        prequant = part("prequant_scaling_factor")
        return SmoothedLinear(
            values=weight, scales=scales, prequant=prequant, activation_scale=activation_scale, bias=bias
        )

    def _native(self, weight: FloatArray, bias: FloatArray | None) -> LinearWeight:
        if self.config.quant_algo == "W8A16":
            values, scales = native_quantize(weight, 8, self.config.dtype)
            return Int8Linear(values=values, scales=scales, bias=bias)
        values, scales = native_quantize(weight, 4, self.config.dtype)
        return Int4Linear(packed=pack_columns(values), scales=scales[:, None], prequant=None, bias=bias)

    def dequantize(self, prefix: str, expert: int | None = None) -> NDArray[np.float32]:
        """Return the weight of the linear `prefix` as float32 (out, in): what the format left of it."""
        return self.linear(prefix, expert).dequantize()
