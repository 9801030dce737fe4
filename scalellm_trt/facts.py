"""`data/*.yaml` in, typed rows out: hardware, toolchains, formats, models. A row without a source is an error."""

from __future__ import annotations

import datetime
import difflib
import functools
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar, cast

from scalellm_trt.errors import ScaleLLMError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Row = Mapping[str, object]

T = TypeVar("T")

HardwareKind = Literal["cpu", "gpu"]
ScaleLayout = Literal["none", "per_channel", "per_group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a row's figures come from. `verified` means that somebody ran it; else it is printed as an estimate."""

    source: str
    date: datetime.date
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """A class of machine or card. None = not a property of the class, read from the machine at hand.

    Attributes:
        reserved_bytes: memory that a plan leaves alone.
        backends: the backends that run on it.
    """

    name: str
    kind: HardwareKind
    description: str
    compute_capability: str | None
    memory_bytes: int | None
    memory_bandwidth_gb_per_s: float | None
    reserved_bytes: int
    backends: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Tool versions that belong together.

    Attributes:
        max_world_size: ranks that one copy of a model may be spread over.
        max_services: copies of a service that may share a machine or card.
        python: PEP 440 range of the interpreter's version.
        wanted_isa: instruction set without which the engine is slow.
        glibc: the oldest C library that its binaries load on.
        packages: Python distribution → PEP 440 range, needed by every build and by serving.
        quantize_packages: the same, for calibrated formats only.
        stages: build stage, in order → patterns of the plan keys that it depends on.
        memory: figures of the engine's budgets that no formula gives, by the names that `memory` reads.
        prefill_flops_per_core: multiply-adds count two; an estimate for a step's duration.
    """

    name: str
    backend: str
    is_default: bool
    engine_kind: str
    tokens_per_block: int
    max_world_size: int
    max_services: int
    python: str
    architecture: str
    wanted_isa: str
    glibc: str
    packages: Mapping[str, str]
    quantize_packages: Mapping[str, str]
    stages: Mapping[str, tuple[str, ...]]
    memory: Mapping[str, int]
    prefill_flops_per_core: int
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSupport:
    """One weight format on one backend.

    Attributes:
        reason: why it is supported, and at which price; or why it is not.
        bits: of one weight in the running engine's memory, without scales; None where unsupported.
        kv_cache_dtypes: the resolved KV-cache types that it may be combined with.
    """

    backend: str
    weights: str
    is_supported: bool
    reason: str
    scales: ScaleLayout
    bits: int | None
    is_calibrated: bool
    kv_cache_dtypes: tuple[str, ...]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A model whose shape is known before a download.

    Attributes:
        sources: the values of a recipe's `model.source` that mean it.
        config: the Hugging Face config.json, for `model_spec.from_hf_config`.
    """

    name: str
    sources: tuple[str, ...]
    license: str
    config: Mapping[str, object]
    origin: Origin


@functools.cache
def hardware() -> Mapping[str, Hardware]:
    """Return the classes of hardware by name."""
    return _load("hardware.yaml", parse_hardware)


@functools.cache
def toolchains() -> Mapping[str, Toolchain]:
    """Return the toolchains by name."""
    return _load("toolchains.yaml", parse_toolchain)


@functools.cache
def models() -> Mapping[str, ModelRow]:
    """Return the known models by name."""
    return _load("models.yaml", parse_model)


@functools.cache
def weight_formats() -> Mapping[str, WeightSupport]:
    """Return the weight formats by `backend/format`."""
    return _load("quantization.yaml", parse_weight_format, section="weights")


@functools.cache
def kv_cache_formats() -> Mapping[str, KvCacheSupport]:
    """Return the KV-cache types by `backend/type`."""
    return _load("quantization.yaml", parse_kv_cache_format, section="kv_cache")


def model_from(source: str) -> ModelRow | None:
    """Return the known model that a recipe's `model.source` means; a revision after `@` is not looked at."""
    wanted = source.split("@", 1)[0] if source.startswith("hf:") else source
    return next((row for row in models().values() if wanted in row.sources), None)


def default_toolchain(backend: str) -> Toolchain | None:
    """Return the toolchain that a backend uses where the recipe names none."""
    return next((row for row in toolchains().values() if row.backend == backend and row.is_default), None)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like `name`, if any looks like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)), None)


def parse_hardware(name: str, row: Row) -> Hardware:
    """Turn one row of hardware.yaml into its type."""
    bandwidth = row["memory_bandwidth_gb_per_s"]
    return Hardware(
        name=name,
        kind=cast("HardwareKind", _one_of(row, "kind", ("cpu", "gpu"))),
        description=_text(row, "description"),
        compute_capability=None if row["compute_capability"] is None else _text(row, "compute_capability"),
        memory_bytes=None if row["memory_bytes"] is None else _int(row, "memory_bytes"),
        memory_bandwidth_gb_per_s=float(bandwidth) if isinstance(bandwidth, int | float) else None,
        reserved_bytes=_int(row, "reserved_bytes"),
        backends=_texts(row, "backends"),
        origin=_origin(row),
    )


def parse_toolchain(name: str, row: Row) -> Toolchain:
    """Turn one row of toolchains.yaml into its type."""
    stages, memory = _table(row, "stages"), _table(row, "memory")
    return Toolchain(
        name=name,
        backend=_text(row, "backend"),
        is_default=_flag(row, "is_default"),
        engine_kind=_text(row, "engine_kind"),
        tokens_per_block=_int(row, "tokens_per_block"),
        max_world_size=_int(row, "max_world_size"),
        max_services=_int(row, "max_services"),
        python=_text(row, "python"),
        architecture=_text(row, "architecture"),
        wanted_isa=_text(row, "wanted_isa"),
        glibc=_text(row, "glibc"),
        packages=_text_table(row, "packages"),
        quantize_packages=_text_table(row, "quantize_packages"),
        stages=MappingProxyType({stage: _texts(stages, stage) for stage in stages}),
        memory=MappingProxyType({figure: _int(memory, figure) for figure in memory}),
        prefill_flops_per_core=_int(row, "prefill_flops_per_core"),
        origin=_origin(row),
    )


def parse_weight_format(name: str, row: Row) -> WeightSupport:
    """Turn one row of quantization.yaml's `weights` into its type; an unsupported one needs only a reason."""
    backend, _, weights = name.partition("/")
    is_supported = _flag(row, "supported")
    return WeightSupport(
        backend=backend,
        weights=weights,
        is_supported=is_supported,
        reason=_text(row, "reason"),
        scales=cast("ScaleLayout", _one_of(row, "scales", ("none", "per_channel", "per_group")))
        if is_supported
        else "none",
        bits=_int(row, "bits") if is_supported else None,
        is_calibrated=_flag(row, "calibrated") if is_supported else False,
        kv_cache_dtypes=_texts(row, "kv_cache_dtypes") if is_supported else (),
        origin=_origin(row),
    )


def parse_kv_cache_format(name: str, row: Row) -> KvCacheSupport:
    """Turn one row of quantization.yaml's `kv_cache` into its type; an unsupported one needs only a reason."""
    backend, _, kv_cache_dtype = name.partition("/")
    is_supported = _flag(row, "supported")
    return KvCacheSupport(
        backend=backend,
        kv_cache_dtype=kv_cache_dtype,
        recipe_values=_texts(row, "recipe_values"),
        is_supported=is_supported,
        reason=_text(row, "reason"),
        element_bytes=_int(row, "element_bytes") if is_supported else 0,
        key_scale_bytes_per_channel=_int(row, "key_scale_bytes_per_channel") if is_supported else 0,
        value_scale_bytes_per_token=_int(row, "value_scale_bytes_per_token") if is_supported else 0,
        origin=_origin(row),
    )


def parse_model(name: str, row: Row) -> ModelRow:
    """Turn one row of models.yaml into its type."""
    return ModelRow(
        name=name,
        sources=_texts(row, "sources"),
        license=_text(row, "license"),
        config=MappingProxyType(_table(row, "config")),
        origin=_origin(row),
    )


def parse_rows(name: str, raw: object, parse: Callable[[str, Row], T]) -> Mapping[str, T]:
    """Turn a parsed YAML table of rows into types.

    Raises:
        ScaleLLMError: a row is incomplete, of a wrong type, or without source and date: our own mistake.
    """
    if not isinstance(raw, dict):
        message = f"data/{name} is not a table of rows"
        raise ScaleLLMError(message)
    rows: dict[str, T] = {}
    for key, row in raw.items():
        try:
            if not isinstance(row, dict):
                raise TypeError("is not a table")
            rows[str(key)] = parse(str(key), row)
        except KeyError as error:
            message = f"data/{name}: {key}: {error.args[0]} is missing"
            raise ScaleLLMError(message) from error
        except TypeError as error:
            message = f"data/{name}: {key}: {error}"
            raise ScaleLLMError(message) from error
    return MappingProxyType(rows)


def _load(name: str, parse: Callable[[str, Row], T], section: str | None = None) -> Mapping[str, T]:
    import yaml

    text = (resources.files("scalellm_trt") / "data" / name).read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    return parse_rows(name, raw if section is None else raw[section], parse)


def _origin(row: Row) -> Origin:
    date = row["date"]
    if not isinstance(date, datetime.date):
        raise _wrong("date", "a date", date)
    return Origin(source=_text(row, "source"), date=date, verified=_flag(row, "verified"))


def _wrong(key: str, expected: str, found: object) -> TypeError:
    return TypeError(f"{key} must be {expected}, found {found!r}")


def _text(row: Row, key: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise _wrong(key, "a text", value)
    return value


def _int(row: Row, key: str) -> int:
    value = row[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _wrong(key, "a whole number", value)
    return value


def _flag(row: Row, key: str) -> bool:
    value = row[key]
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def _one_of(row: Row, key: str, allowed: tuple[str, ...]) -> str:
    value = _text(row, key)
    if value not in allowed:
        raise _wrong(key, f"one of {', '.join(allowed)}", value)
    return value


def _texts(row: Row, key: str) -> tuple[str, ...]:
    value = row[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(key, "a list of texts", value)
    return tuple(value)


def _table(row: Row, key: str) -> dict[str, object]:
    value = row[key]
    if not isinstance(value, dict):
        raise _wrong(key, "a table", value)
    return {str(name): item for name, item in value.items()}


def _text_table(row: Row, key: str) -> Mapping[str, str]:
    table = _table(row, key)
    return MappingProxyType({name: _text(table, name) for name in table})
