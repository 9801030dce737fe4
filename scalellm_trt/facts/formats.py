"""`data/quantization.yaml`: how a backend stores weights and KV cache."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from scalellm_trt.facts import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.facts.rows import Origin, Row

ScaleLayout = Literal["none", "per_tensor", "per_channel", "per_group"]
_LAYOUTS = ("none", "per_tensor", "per_channel", "per_group")


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSupport:
    """One weight format on one backend.

    Attributes:
        reason: why it is supported, and at which price; or why it is not.
        bits: of one weight in the running engine's memory, without scales; None where unsupported.
        kv_cache_dtypes: the resolved KV-cache types that it may be combined with.
        group_sizes: for which there are kernels; empty = any that divides the model's sizes.
    """

    backend: str
    weights: str
    is_supported: bool
    reason: str
    scales: ScaleLayout
    bits: int | None
    is_calibrated: bool
    kv_cache_dtypes: tuple[str, ...]
    group_sizes: tuple[int, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCacheSupport:
    """One resolved KV-cache type on one backend, and what a block of it holds besides its elements.

    Attributes:
        recipe_values: what a recipe writes to get it.
        key_scale_bytes_per_channel: per block, KV head and channel.
        value_scale_bytes_per_token: per KV head.
    """

    backend: str
    kv_cache_dtype: str
    recipe_values: tuple[str, ...]
    is_supported: bool
    reason: str
    element_bytes: int
    key_scale_bytes_per_channel: int
    value_scale_bytes_per_token: int
    origin: Origin


@functools.cache
def weight_formats() -> Mapping[str, WeightSupport]:
    """Return the weight formats by `backend/format`."""
    return rows.load("quantization.yaml", parse_weight_format, section="weights")


@functools.cache
def kv_cache_formats() -> Mapping[str, KvCacheSupport]:
    """Return the KV-cache types by `backend/type`."""
    return rows.load("quantization.yaml", parse_kv_cache_format, section="kv_cache")


def parse_weight_format(name: str, row: Row) -> WeightSupport:
    """Turn one row of quantization.yaml's `weights` into its type; an unsupported one needs only a reason."""
    backend, _, weights = name.partition("/")
    is_supported = rows.flag(row, "supported")
    return WeightSupport(
        backend=backend,
        weights=weights,
        is_supported=is_supported,
        reason=rows.text(row, "reason"),
        scales=cast("ScaleLayout", rows.one_of(row, "scales", _LAYOUTS)) if is_supported else "none",
        bits=rows.whole(row, "bits") if is_supported else None,
        is_calibrated=rows.flag(row, "calibrated") if is_supported else False,
        kv_cache_dtypes=rows.texts(row, "kv_cache_dtypes") if is_supported else (),
        group_sizes=rows.wholes(row, "group_sizes") if "group_sizes" in row else (),
        origin=rows.origin(row),
    )


def parse_kv_cache_format(name: str, row: Row) -> KvCacheSupport:
    """Turn one row of quantization.yaml's `kv_cache` into its type; an unsupported one needs only a reason."""
    backend, _, kv_cache_dtype = name.partition("/")
    is_supported = rows.flag(row, "supported")
    return KvCacheSupport(
        backend=backend,
        kv_cache_dtype=kv_cache_dtype,
        recipe_values=rows.texts(row, "recipe_values"),
        is_supported=is_supported,
        reason=rows.text(row, "reason"),
        element_bytes=rows.whole(row, "element_bytes") if is_supported else 0,
        key_scale_bytes_per_channel=rows.whole(row, "key_scale_bytes_per_channel") if is_supported else 0,
        value_scale_bytes_per_token=rows.whole(row, "value_scale_bytes_per_token") if is_supported else 0,
        origin=rows.origin(row),
    )
