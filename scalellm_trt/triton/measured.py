"""A server's log in, what each engine really took on its GPU out; kept in `builds/NAME/measured.json`.

The lines are those of TensorRT-LLM's executor (docs/source/legacy/reference/memory.md; trtGptModelInflightBatching.cpp
and kvCacheManager.cpp of 0.13 to 1.2), and of its PyTorch backend (_torch/pyexecutor/_util.py of 1.x), which the LLM
API runs. They do not name a model: engines load one after the other, and what was said since the model before belongs
to the one that Triton reports next. Of several ranks the largest counts; the PyTorch backend's first pool, a small one
to try a step with, is less than the one that stays.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts import manifest
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from scalellm_trt.memory import MemoryBudget

FILE_NAME: Final = "measured.json"

_UNITS: Final = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_AMOUNT = r"([0-9.]+) ?([KMG]i?B|B)\b"
_PROFILED = r"in memory usage profiling"
_SIZES: Final = {
    "engine_bytes": re.compile(
        rf"(?:Loaded engine size|after loading model weights \(inside torch\) {_PROFILED}): {_AMOUNT}"
    ),
    "execution_context_bytes": re.compile(
        rf"(?:Allocated (?=[0-9.]+ \S+ for execution context)"
        rf"|allocated during inference \(inside torch\) {_PROFILED}: ){_AMOUNT}"
    ),
    "runtime_buffers_bytes": re.compile(rf"Allocated {_AMOUNT} GPU memory for runtime buffers"),
    "decoder_bytes": re.compile(rf"Allocated {_AMOUNT} GPU memory for decoder"),
    "kv_cache_bytes": re.compile(rf"Allocated {_AMOUNT} for max tokens in paged KV cache"),
    "free_before_kv_cache_bytes": re.compile(
        rf"(?:max tokens in paged kv cache: total: .*?, available"
        rf"|available KV cache memory when calculating max tokens): {_AMOUNT}"
    ),
}
_COUNTS: Final = {
    "kv_cache_tokens": re.compile(r"for max tokens in paged KV cache \((\d+)\)"),
    "tokens_per_block": re.compile(r"Number of tokens per block: (\d+)"),
}
# What the parts are called in the plan's budgets.
_ITEMS: Final = {
    "engine_bytes": "weights",
    "execution_context_bytes": "activations",
    "runtime_buffers_bytes": "runtime buffers",
    "decoder_bytes": "decoder",
    "kv_cache_bytes": "KV cache",
}
_LOADED = re.compile(r"successfully loaded '([^']+)'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one rank of an engine took, as its log says; None where the log does not.

    Attributes:
        engine_bytes: the engine file: the weights; of the LLM API: what torch holds once they are loaded.
        execution_context_bytes: activations; of the LLM API: what torch allocates while the largest step runs.
        runtime_buffers_bytes, decoder_bytes: grow with max_batch_size and max_seq_len.
        kv_cache_bytes, kv_cache_tokens: the pool.
        free_before_kv_cache_bytes: what was left of the card when the pool was made.
        tokens_per_block: page of the pool.
    """

    engine_bytes: int | None = None
    execution_context_bytes: int | None = None
    runtime_buffers_bytes: int | None = None
    decoder_bytes: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_tokens: int | None = None
    free_before_kv_cache_bytes: int | None = None
    tokens_per_block: int | None = None


def parse(lines: Iterable[str], engines: Collection[str]) -> dict[str, Measured]:
    """Return what the log says of each of the models `engines`; a model of which it says nothing is left out."""
    found: dict[str, Measured] = {}
    seen: dict[str, int] = {}
    for line in lines:
        for name, value in _values(line):
            seen[name] = max(value, seen.get(name, 0))
        if (match := _LOADED.search(line)) and match[1] in engines:
            if seen:
                found[match[1]] = Measured(**seen)
            seen = {}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A part of the device memory of all services together: as planned, and as measured."""

    name: str
    planned_bytes: int
    measured_bytes: int


def compare(planned: MemoryBudget, models: Collection[Measured]) -> list[Comparison]:
    """Return what the logs say beside what the budget of the device holds, item by item; parts not logged are left out.

    Args:
        planned: the budget of one rank with all services, from the plan.
        models: one for each service.
    """
    found = []
    for attribute, prefix in _ITEMS.items():
        values = [getattr(each, attribute) for each in models]
        items = [item.num_bytes for item in planned.items if item.name.startswith(prefix)]
        if items and values and None not in values:
            found.append(Comparison(name=prefix, planned_bytes=sum(items), measured_bytes=sum(values)))
    return found


def write(models: Mapping[str, Measured], path: Path, log: Path) -> None:
    """Keep the figures of a service's models, with when they were measured and by which log."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    body = {"measured": now, "log": str(log), "models": {name: asdict(each) for name, each in models.items()}}
    manifest.replace_text(path, json.dumps(body, indent=1) + "\n")


def read(path: Path) -> dict[str, Measured]:
    """Return what `write` kept; nothing where the service never ran.

    Raises:
        ArtefactError: the file is damaged.
    """
    names = {field.name for field in fields(Measured)}
    try:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
        return {
            name: Measured(**{key: int(value) for key, value in each.items() if key in names and value is not None})
            for name, each in models.items()
        }
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path}: cannot be read as what a server measured: {error}"
        raise ArtefactError(message, hint="Remove it; the next `scalellm-trt serve` writes it anew.") from error


def _values(line: str) -> Iterable[tuple[str, int]]:
    for name, pattern in _SIZES.items():
        if match := pattern.search(line):
            yield name, round(float(match[1]) * _UNITS[match[2].upper()])
    for name, pattern in _COUNTS.items():
        if match := pattern.search(line):
            yield name, int(match[1])
