"""The NVIDIA cards of this machine or container as nvidia-smi describes them."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import process
from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM = "nvidia-smi"
FIELDS = (
    "index",
    "name",
    "uuid",
    "compute_cap",
    "memory.total",
    "memory.free",
    "driver_version",
    "display_active",
    "mig.mode.current",
)
# A card that has fallen off the bus makes nvidia-smi hang for minutes.
TIMEOUT_S = 20.0
_MIB = 1 << 20
_VERSION = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One card, as the driver describes it.

    Attributes:
        index: its number as nvidia-smi counts.
        compute_capability: such as `8.9`.
        memory_bytes: what the driver reports as total, less than the box says.
        memory_free_bytes: what nobody holds right now; a desktop takes its part.
        has_display: a screen is attached, so that its use of memory changes.
        has_mig: the card is cut into MIG instances; the bytes are of the whole card.
    """

    index: int
    name: str
    uuid: str
    compute_capability: str
    memory_bytes: int
    memory_free_bytes: int
    driver_version: str
    has_display: bool
    has_mig: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What nvidia-smi says.

    Attributes:
        gpus: the cards; none is a normal answer.
        problem: why a program that is there names no cards; None where there is no nvidia-smi.
    """

    gpus: tuple[Gpu, ...]
    problem: str | None


def look(program: str = PROGRAM) -> Gpus:
    """Ask nvidia-smi for the cards; whatever it answers, nothing is raised."""
    try:
        lines = _ask(program, FIELDS)
    except ToolchainError:
        return Gpus(gpus=(), problem=None)
    except StageError as error:
        driver = _driver(program)
        return Gpus(gpus=(), problem=_complaint(error.message) + (f" (driver {driver})" if driver else ""))
    return parse(lines)


def parse(lines: Sequence[str]) -> Gpus:
    """Read the answer to `--query-gpu` with `FIELDS`, `csv,noheader,nounits`; what cannot be read is the problem."""
    gpus: list[Gpu] = []
    for line in lines:
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(FIELDS):
            return Gpus(gpus=(), problem=f"nvidia-smi: {line.strip()}")
        row = dict(zip(FIELDS, values, strict=True))
        for field in ("index", "memory.total", "memory.free"):
            if not row[field].isdigit():
                return Gpus(gpus=(), problem=f"nvidia-smi says {field} {row[field]} for {row['name']}")
        gpus.append(_gpu(row))
    return Gpus(gpus=tuple(gpus), problem=None if gpus else "nvidia-smi names no card")


def _gpu(row: Mapping[str, str]) -> Gpu:
    return Gpu(
        index=int(row["index"]),
        name=row["name"],
        uuid=row["uuid"],
        compute_capability=row["compute_cap"],
        memory_bytes=int(row["memory.total"]) * _MIB,
        memory_free_bytes=int(row["memory.free"]) * _MIB,
        driver_version=row["driver_version"],
        has_display=row["display_active"] == "Enabled",
        has_mig=row["mig.mode.current"] == "Enabled",
    )


def _driver(program: str) -> str | None:
    """Ask for the driver's version alone: drivers before 510 do not know `compute_cap`."""
    try:
        answer = _ask(program, ("driver_version",))
    except (ToolchainError, StageError):
        return None
    return answer[0].strip() if answer and _VERSION.fullmatch(answer[0].strip()) else None


def _ask(program: str, fields: Sequence[str]) -> list[str]:
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "nvidia-smi.log"
        process.run(command, log=log, timeout_s=TIMEOUT_S)
        text = log.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("$ ")]


def _complaint(message: str) -> str:
    """Return nvidia-smi's own words from a failure of `process.run`, or how it ended where it said nothing."""
    first, *rest = message.splitlines()
    said = [line.removeprefix("  | ").strip() for line in rest if not line.startswith("  | $ ")]
    words = " ".join(line for line in said if line)
    return f"nvidia-smi: {words}" if words else f"nvidia-smi: {first.rpartition(': ')[2]}"
