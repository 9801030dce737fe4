"""The machine at hand: processors, instruction sets, memory, disk, libraries and cards, limits honoured."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scalellm_trt.detect import nvidia

if TYPE_CHECKING:
    from scalellm_trt.detect.nvidia import Gpu

Isa = Literal["avx2", "fma", "f16c", "avx512", "avx512_fp16", "avx512_bf16", "amx_bf16", "amx_fp16"]

# /proc/cpuinfo flag → our name; AVX-512 counts as there with the subset that inference kernels use.
_ISA_OF_FLAGS: tuple[tuple[Isa, frozenset[str]], ...] = (
    ("avx2", frozenset({"avx2"})),
    ("fma", frozenset({"fma"})),
    ("f16c", frozenset({"f16c"})),
    ("avx512", frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"})),
    ("avx512_fp16", frozenset({"avx512_fp16"})),
    ("avx512_bf16", frozenset({"avx512_bf16"})),
    ("amx_bf16", frozenset({"amx_bf16"})),
    ("amx_fp16", frozenset({"amx_fp16"})),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to build and serve on.

    Attributes:
        num_physical_cores: cores of the machine, whoever may use them.
        num_usable_cores: processors that this process may use: affinity and cgroup quota, at least one.
        isa: vector instruction sets, by our names, in a fixed order.
        memory_total_bytes: of the machine or of the tightest cgroup around us, whichever is less.
        memory_available_bytes: what can be taken now without swapping, within the same limits.
        disk_free_bytes: on the file system of the folder that was asked about.
        glibc: version such as `2.36`; None on another C library.
        libpython: the shared library of this interpreter; None where there is none.
        gpus: the cards, empty without an NVIDIA driver.
        gpu_problem: why nvidia-smi, which is there, names none; None where all is well or there is no nvidia-smi.
    """

    system: str
    architecture: str
    cpu_model: str
    num_physical_cores: int
    num_usable_cores: int
    isa: tuple[Isa, ...]
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int
    python_version: str
    glibc: str | None
    libpython: Path | None
    gpus: tuple[Gpu, ...]
    gpu_problem: str | None = None


def machine(folder: Path = Path(), *, root: Path = Path("/")) -> Machine:
    """Look at this machine.

    Args:
        folder: where artefacts will be written; it or its nearest existing parent tells the free disk space.
        root: where /proc and /sys are found.
    """
    import psutil

    memory = psutil.virtual_memory()
    total, available = memory_within_cgroup(memory.total, memory.available, root)
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    cards = nvidia.look()
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cpu_model=cpu_model(cpuinfo) or platform.processor() or "unknown",
        num_physical_cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        num_usable_cores=usable_cores(_affinity(), root),
        isa=isa(cpuinfo),
        memory_total_bytes=total,
        memory_available_bytes=available,
        disk_free_bytes=disk_free_bytes(folder),
        python_version=platform.python_version(),
        glibc=glibc_version(),
        libpython=libpython(),
        gpus=cards.gpus,
        gpu_problem=cards.problem,
    )


def cpu_model(cpuinfo: str) -> str | None:
    """Return the processor's name from the text of /proc/cpuinfo."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else None


def isa(cpuinfo: str) -> tuple[Isa, ...]:
    """Return the vector instruction sets from the text of /proc/cpuinfo (x86-64)."""
    found = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    flags = frozenset(found.group(1).split()) if found else frozenset()
    return tuple(name for name, needed in _ISA_OF_FLAGS if needed <= flags)


def usable_cores(num_affine: int, root: Path) -> int:
    """Return the processors that this process may keep busy: its affinity, cut by the tightest cgroup quota."""
    quotas = [quota for folder in _cgroup_folders(root, "cpu") if (quota := _cpu_quota(folder)) is not None]
    return max(1, min([num_affine, *(int(quota) for quota in quotas)]))


def memory_within_cgroup(total: int, available: int, root: Path) -> tuple[int, int]:
    """Cut the machine's memory by every cgroup limit around this process.

    Returns:
        Total and available bytes. Inside a limit, page cache that can be dropped counts as available.
    """
    for folder in _cgroup_folders(root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        if limit is None or limit >= total:
            continue
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        total, available = limit, min(available, max(0, limit - used + _inactive_file_bytes(folder)))
    return total, min(available, total)


def disk_free_bytes(folder: Path) -> int:
    """Return the bytes that we may still write below `folder`, which need not exist yet."""
    existing = next(path for path in [folder.absolute(), *folder.absolute().parents] if path.exists())
    return shutil.disk_usage(existing).free


def glibc_version() -> str | None:
    """Return the version of the GNU C library; None on another one."""
    name, version = platform.libc_ver()
    return version if name == "glibc" and version else None


def libpython() -> Path | None:
    """Return this interpreter's shared library, which tritonserver's python stub loads; None where there is none."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folders = [
        sysconfig.get_config_var("LIBDIR"),
        Path(sys.base_prefix) / "lib",
        f"/usr/lib/{platform.machine()}-linux-gnu",
        "/usr/lib64",
        "/usr/local/lib",
    ]
    candidates = (Path(folder) / name for folder in folders if folder)
    return next((path for path in candidates if path.is_file()), None)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Return this process's cgroup of `controller` and all above it, version 1 or 2, that can be seen from here."""
    folders: list[Path] = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            top = root / "sys/fs/cgroup"
        elif controller in names.split(","):
            top = root / "sys/fs/cgroup" / controller
        else:
            continue
        # In a container the path may be the host's; then only the top is visible, and it is our own group.
        below = top / path.strip("/")
        folders += [folder for folder in [below, *below.parents] if folder.is_dir() and folder.is_relative_to(top)]
    return folders


def _cpu_quota(folder: Path) -> float | None:
    """Return the processors' worth of time that a cgroup grants; None without a quota."""
    words = (_read(folder / "cpu.max") or "").split()
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and period else None


def _inactive_file_bytes(folder: Path) -> int:
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", _read(folder / "memory.stat") or "", re.MULTILINE)
    return int(found.group(1)) if found else 0


def _number(path: Path) -> int | None:
    """Return a file's only number; None for no file, `max` and the -1 that means no limit."""
    text = (_read(path) or "").strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
