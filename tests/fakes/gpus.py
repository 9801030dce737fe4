"""Cards for the nvidia-smi in tests/fakes/bin, and the environment in which it shows them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FAKE_PROGRAMS = Path(__file__).parent / "bin"

# name, compute capability, total memory in MiB: as nvidia-smi prints them.
CARDS = {
    "t4": ("Tesla T4", "7.5", 15360),
    "l4": ("NVIDIA L4", "8.9", 23034),
    "a10": ("NVIDIA A10", "8.6", 23028),
    "rtx3090": ("NVIDIA GeForce RTX 3090", "8.6", 24576),
    "rtx4090": ("NVIDIA GeForce RTX 4090", "8.9", 24564),
    "rtx5090": ("NVIDIA GeForce RTX 5090", "12.0", 32607),
    "l40s": ("NVIDIA L40S", "8.9", 46068),
    "a100-40g": ("NVIDIA A100-SXM4-40GB", "8.0", 40960),
    "a100-80g": ("NVIDIA A100-SXM4-80GB", "8.0", 81920),
    "h100": ("NVIDIA H100 80GB HBM3", "9.0", 81559),
}


def card(hardware: str, index: int = 0, **changes: str | int) -> dict[str, str | int]:
    """Return the fields of one idle card; a changed field is named with `_` for its dots (`memory_free=100`)."""
    name, compute_capability, memory_mib = CARDS[hardware]
    used_mib = 1
    fields: dict[str, str | int] = {
        "index": index,
        "name": name,
        "uuid": f"GPU-00000000-0000-0000-0000-{index:012d}",
        "compute_cap": compute_capability,
        "memory.total": memory_mib,
        "memory.free": memory_mib - used_mib,
        "memory.used": used_mib,
        "driver_version": "590.44.01",
        "display_active": "Disabled",
        "display_mode": "Disabled",
        "mig.mode.current": "Disabled" if hardware.startswith(("a100", "h100")) else "[N/A]",
        "pci.bus_id": f"00000000:{index + 1:02X}:00.0",
        "power.limit": "450.00",
        "utilization.gpu": 0,
    }
    by_name = {field.replace(".", "_"): field for field in fields}
    return fields | {by_name[name]: value for name, value in changes.items()}


def environment(cards: Sequence[dict[str, str | int]]) -> dict[str, str]:
    """Return what to add to a process's environment so that nvidia-smi shows `cards`."""
    return {"PATH": _path(), "FAKE_NVIDIA_SMI": json.dumps({"cards": list(cards)})}


def broken(says: str, exit_code: int = 9) -> dict[str, str]:
    """Return the environment of an nvidia-smi that fails with these words."""
    return {"PATH": _path(), "FAKE_NVIDIA_SMI": json.dumps({"exit_code": exit_code, "says": says})}


def _path() -> str:
    return f"{FAKE_PROGRAMS}{os.pathsep}{os.environ['PATH']}"
