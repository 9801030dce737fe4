"""A TensorRT-LLM installation, looked at from within: versions, backend library, compiled kernels, limits.

Imports the standard library only, so that it also runs alone: `python3 probe.py` prints its value as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
from pathlib import Path

# What the text model imports besides the standard library.
MODULES = ("numpy", "tokenizers")
LIBRARIES = ("libtensorrt_llm.so", "libnvinfer_plugin_tensorrt_llm.so")
# The libraries have gigabytes, and listing their parts reads all of them.
CUOBJDUMP_TIMEOUT_S = 300
PYTHON_TIMEOUT_S = 60
_CUBIN = re.compile(r"\.sm_(\d+)(\d)[a-z]?\.cubin")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What is installed where this ran.

    Attributes:
        has_triton: whether this looks like NVIDIA's Triton image: /opt/tritonserver is there.
        triton_release: such as `26.07`, by the image's own word.
        backend_libraries: the C++ backend for engines.
        trtllm_build: path of the compiler of engines.
        tensorrt_llm, tensorrt: versions of the packages; None where there are none.
        python: what tritonserver's python models run in: the first python3 on the PATH; None where there is none.
        missing_modules: of MODULES, those that it does not find.
        kernels: library → compute capabilities that it has code for; libraries without any code are left out.
        kernels_problem: why `kernels` is not known.
        shm_bytes: size of /dev/shm.
        memlock_bytes, stack_bytes: soft limits; None is unlimited.
    """

    has_triton: bool
    triton_release: str | None
    backend_libraries: tuple[str, ...]
    trtllm_build: str | None
    tensorrt_llm: str | None
    tensorrt: str | None
    python: str | None
    missing_modules: tuple[str, ...]
    kernels: dict[str, tuple[str, ...]]
    kernels_problem: str | None
    shm_bytes: int
    memlock_bytes: int | None
    stack_bytes: int | None

    @property
    def is_there(self) -> bool:
        """Whether anything of TensorRT-LLM is installed here."""
        return self.has_triton or self.trtllm_build is not None or self.tensorrt_llm is not None


def look(root: Path = Path("/")) -> Installation:
    """Look at what is installed below `root`; programs are searched on the PATH."""
    trtllm_build = shutil.which("trtllm-build")
    folders = package_folders(root, trtllm_build)
    python = shutil.which("python3")
    home = next((folder for folder in folders if (folder / "tensorrt_llm").is_dir()), None)
    kernels, problem = ({}, None) if home is None else compiled_kernels(home / "tensorrt_llm" / "libs", root)
    return Installation(
        has_triton=(root / "opt/tritonserver").is_dir(),
        triton_release=os.environ.get("NVIDIA_TRITON_SERVER_VERSION"),
        backend_libraries=tuple(
            f"/{path.relative_to(root)}"
            for path in sorted(root.glob("opt/tritonserver/backends/tensorrtllm/libtriton_tensorrtllm*.so"))
        ),
        trtllm_build=trtllm_build,
        tensorrt_llm=version_of(folders, r"tensorrt_llm"),
        tensorrt=version_of(folders, r"tensorrt(_cu\d+)?") or library_version(root),
        python=python,
        missing_modules=() if python is None else missing_modules(python),
        kernels=kernels,
        kernels_problem=problem,
        shm_bytes=_size(root / "dev/shm"),
        memlock_bytes=_limit(resource.RLIMIT_MEMLOCK),
        stack_bytes=_limit(resource.RLIMIT_STACK),
    )


def package_folders(root: Path, trtllm_build: str | None) -> list[Path]:
    """Return where Python packages may lie, the one that trtllm-build uses first."""
    found: list[Path] = []
    if trtllm_build is not None:
        found += Path(trtllm_build).resolve().parent.parent.glob("lib/python3*/*-packages")
    for pattern in ("opt/venv-tritonserver/lib/python3*/site-packages", "usr/local/lib/python3*/dist-packages"):
        found += sorted(root.glob(pattern))
    return list(dict.fromkeys(found))


def version_of(folders: list[Path], distribution: str) -> str | None:
    """Return the version in the first `NAME-VERSION.dist-info`; nothing is imported, which would take a minute."""
    name = re.compile(rf"{distribution}-([^-]+)\.dist-info", re.IGNORECASE)
    for folder in folders:
        for entry in sorted(folder.glob("*.dist-info")):
            if match := name.fullmatch(entry.name):
                return match[match.lastindex or 1]
    return None


def library_version(root: Path) -> str | None:
    """Return TensorRT's version as its library is named, `libnvinfer.so.10.14.1`: without the build number."""
    for pattern in ("usr/lib/*-linux-gnu", "usr/local/tensorrt/lib", "usr/local/tensorrt/targets/*/lib"):
        for path in sorted(root.glob(f"{pattern}/libnvinfer.so.*")):
            if match := re.fullmatch(r"libnvinfer\.so\.(\d+\.\d+\.\d+)", path.name):
                return match[1]
    return None


def missing_modules(python: str) -> tuple[str, ...]:
    """Return which of MODULES an interpreter does not find; all of them where it does not start."""
    code = "import sys; from importlib.util import find_spec; print(*(n for n in sys.argv[1:] if find_spec(n) is None))"
    try:
        # Not process.run: this file also runs alone, in an image that does not have us installed.
        argv = [python, "-c", code, *MODULES]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PYTHON_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return MODULES
    return MODULES if done.returncode else tuple(done.stdout.split())


def compiled_kernels(libs: Path, root: Path) -> tuple[dict[str, tuple[str, ...]], str | None]:
    """Ask cuobjdump which compute capabilities the libraries have machine code for.

    Returns:
        Library → compute capabilities, and why they are not known.
    """
    program = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=str(root / "usr/local/cuda/bin"))
    if program is None:
        return {}, "cuobjdump is not installed"
    kernels = {}
    for name in LIBRARIES:
        if not (libs / name).is_file():
            continue
        try:
            # Not process.run: this file also runs alone, in an image that does not have us installed.
            done = subprocess.run(
                [program, "--list-elf", str(libs / name)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CUOBJDUMP_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {}, f"cuobjdump: {error}"
        if found := capabilities(done.stdout):
            kernels[name] = found
        elif done.returncode != 0 and "does not contain device code" not in done.stdout + done.stderr:
            return {}, f"cuobjdump {name}: {(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}"
    return kernels, None if kernels else f"no code found in {' or '.join(LIBRARIES)} in {libs}"


def capabilities(listing: str) -> tuple[str, ...]:
    """Return the compute capabilities in the output of `cuobjdump --list-elf`, lowest first: `sm_89` is 8.9."""
    found = {(int(major), int(minor)) for major, minor in _CUBIN.findall(listing)}
    return tuple(f"{major}.{minor}" for major, minor in sorted(found))


def to_json(installation: Installation) -> str:
    """Return one line of JSON."""
    return json.dumps(dataclasses.asdict(installation))


def from_json(text: str) -> Installation:
    """Read what `to_json` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        raw = json.loads(text)
        raw["backend_libraries"] = tuple(raw["backend_libraries"])
        raw["missing_modules"] = tuple(raw["missing_modules"])
        raw["kernels"] = {name: tuple(found) for name, found in raw["kernels"].items()}
        return Installation(**raw)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        message = f"is not what the probe prints: {text[:200]}"
        raise ValueError(message) from error


def _size(folder: Path) -> int:
    return shutil.disk_usage(folder).total if folder.is_dir() else 0


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


if __name__ == "__main__":
    print(to_json(look()))
