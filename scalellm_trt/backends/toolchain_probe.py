"""What a machine or an image can build and load engines with: cards, driver, versions. Standard library only.

Run as `python3 toolchain_probe.py OUT.json NVIDIA_SMI_FIELDS`, also inside an image that does not have us installed.
Versions are read by the interpreter that `trtllm-build` runs in, which need not be the one that runs this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PROGRAM = "trtllm-build"
PACKAGES = {
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt_cu13", "tensorrt_cu12"),
    "tensorrt_llm": ("tensorrt_llm", "tensorrt-llm"),
    "modelopt": ("nvidia-modelopt",),
}
TIMEOUT_S = 60


def packages() -> dict[str, str | None]:
    """Return the versions of the interpreter that runs this."""
    return {name: _version(candidates) for name, candidates in PACKAGES.items()}


def interpreter_of(script: str) -> str | None:
    """Return the Python that an installed script runs in, from its first line; None where it does not say."""
    with Path(script).open("rb") as stream:
        words = stream.readline(4096).decode(errors="replace").removeprefix("#!").split()
    if not words:
        return None
    program = words[1] if Path(words[0]).name == "env" and len(words) > 1 else words[0]
    return shutil.which(program) if "python" in Path(program).name else None


def cards(fields: str) -> list[str]:
    """Return nvidia-smi's line for each card; none without a driver."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.strip()]


def probe(fields: str) -> dict[str, object]:
    """Return everything, as it is written to OUT.json."""
    program = shutil.which(PROGRAM)
    python = (interpreter_of(program) if program else None) or shutil.which("python3") or sys.executable
    found = packages()
    if os.path.realpath(python) != os.path.realpath(sys.executable) or python != sys.executable:
        argv = [python, os.path.abspath(__file__), "--packages"]  # noqa: PTH100 - of the file as it was called
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode == 0:
            found = json.loads(done.stdout)
    return {"trtllm_build": program, "python": python, "packages": found, "cards": cards(fields)}


def _version(candidates: tuple[str, ...]) -> str | None:
    for name in candidates:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def main(arguments: list[str]) -> None:
    """Write what was found to a file: an image's entry point prints a banner on stdout."""
    if arguments == ["--packages"]:
        print(json.dumps(packages()))
        return
    out, fields = arguments
    Path(out).write_text(json.dumps(probe(fields)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
