"""Where a run was made: machine and versions, as text for reports."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

from scalellm_trt import __version__, detect

PACKAGES = ("openvino", "tritonclient", "uvloop", "httptools")


def describe() -> dict[str, str]:
    """Return machine, system and versions."""
    machine = detect.machine(Path())
    return {
        "scalellm_trt": __version__,
        "cpu": f"{machine.cpu_model}, {machine.num_usable_cores} usable cores",
        "memory_gib": f"{machine.memory_total_bytes / 2**30:.1f}",
        "gpus": ", ".join(gpu.name for gpu in machine.gpus) or "none",
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def num_cores() -> int:
    """Return the cores that this process may use."""
    return detect.machine(Path()).num_usable_cores


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
