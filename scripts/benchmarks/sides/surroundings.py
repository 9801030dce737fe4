"""What a figure depends on besides the code: printed with every result."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess

from scalellm_trt import detect
from scripts.benchmarks.sides.worker import ROOT

PACKAGES = ("openvino", "openvino-genai", "nvidia-pytriton", "tritonclient", "grpcio", "numpy")


def describe(**more: object) -> dict[str, object]:
    """Return machine, versions, date and the source's revision, followed by `more`."""
    machine = detect.machine(ROOT)
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": f"{machine.cpu_model}, {machine.num_usable_cores} usable cores, {' '.join(machine.isa)}",
        "memory_gib": round(machine.memory_total_bytes / 2**30, 1),
        "system": platform.platform(),
        "python": machine.python_version,
        "revision": git.stdout.strip() or "unknown",
        **{name: _version(name) for name in PACKAGES},
        **more,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
