"""One point that the doctor looks at: what was found, what is needed, and the fix where they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from scalellm_trt.memory import format_gib

if TYPE_CHECKING:
    from scalellm_trt.detect import Machine
    from scalellm_trt.doctor.surroundings import Surroundings
    from scalellm_trt.facts import HostToolchain, Toolchain

Status = Literal["ok", "warn", "fail"]

MIN_DISK_BYTES = 2 << 30
MIN_MEMORY_BYTES = 2 << 30
_INSTALL_CPU = "pip install 'scalellm-trt[cpu]'"
_INSTALL_QUANTIZE = "pip install 'scalellm-trt[quantize]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One point.

    Attributes:
        status: `warn` works, at a price or not yet; `fail` does not work.
        needed: what is needed, or what it is needed for.
        fix: the next step; empty where nothing is to be done.
        backend: the backend that a failure stops; None where it stops all.
    """

    name: str
    status: Status
    found: str
    needed: str
    fix: str = ""
    backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A check before it is judged."""

    name: str
    needed: str
    backend: str | None

    def ok(self, found: str) -> Check:
        """Say that nothing is to be done."""
        return self._check("ok", found, "")

    def warn(self, found: str, fix: str) -> Check:
        """Say that it works at a price, or may not work."""
        return self._check("warn", found, fix)

    def fail(self, found: str, fix: str) -> Check:
        """Say that it does not work."""
        return self._check("fail", found, fix)

    def _check(self, status: Status, found: str, fix: str) -> Check:
        return Check(name=self.name, status=status, found=found, needed=self.needed, fix=fix, backend=self.backend)


def python_version(machine: Machine, toolchain: Toolchain) -> Check:
    """Judge the interpreter's version."""
    is_right = satisfies(machine.python_version, host_of(toolchain).python)
    return Check(
        name="python",
        status="ok" if is_right else "fail",
        found=machine.python_version,
        needed=host_of(toolchain).python,
        fix="" if is_right else "Make the virtual environment with a Python in this range, such as python3.12.",
        backend=toolchain.backend,
    )


def libpython(machine: Machine, toolchain: Toolchain) -> Check:
    """Judge whether the interpreter has a shared library: tritonserver's python backend loads it."""
    version = ".".join(machine.python_version.split(".")[:2])
    fix = (
        f"Debian, Ubuntu: apt-get install libpython{version}. Fedora: dnf install python{version}-libs. "
        "pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install again."
    )
    return Check(
        name="libpython",
        status="ok" if machine.libpython else "fail",
        found=str(machine.libpython or "none"),
        needed=f"libpython{version}.so.1.0, for tritonserver's python backend",
        fix="" if machine.libpython else fix,
        backend=toolchain.backend,
    )


def glibc(machine: Machine, toolchain: Toolchain) -> Check:
    """Judge the C library's version."""
    is_right = machine.glibc is not None and satisfies(machine.glibc, f">={host_of(toolchain).glibc}")
    fix = "Use Ubuntu 22.04, Debian 12, Fedora 36 or later, or run inside NVIDIA's Triton image."
    return Check(
        name="glibc",
        status="ok" if is_right else "fail",
        found=machine.glibc or "another C library",
        needed=f">={host_of(toolchain).glibc}",
        fix="" if is_right else fix,
        backend=toolchain.backend,
    )


def architecture(machine: Machine, toolchain: Toolchain) -> Check:
    """Judge operating system and processor family."""
    is_right = (machine.system, machine.architecture) == ("Linux", toolchain.architecture)
    return Check(
        name="platform",
        status="ok" if is_right else "fail",
        found=f"{machine.system} {machine.architecture}",
        needed=f"Linux {toolchain.architecture}",
        fix="" if is_right else f"Build and serve on a Linux {toolchain.architecture} machine.",
        backend=toolchain.backend,
    )


def processor(machine: Machine, toolchain: Toolchain) -> Check:
    """Judge instruction sets; a slow processor still works."""
    is_right = host_of(toolchain).wanted_isa in machine.isa
    cores = f"{machine.num_usable_cores} usable of {machine.num_physical_cores} cores"
    return Check(
        name="processor",
        status="ok" if is_right else "warn",
        found=f"{machine.cpu_model}, {cores}, {' '.join(machine.isa) or 'no vector instructions known'}",
        needed=host_of(toolchain).wanted_isa,
        fix="" if is_right else "It works, slowly: prefer a processor with AVX2 or AVX-512.",
        backend=toolchain.backend,
    )


def memory(machine: Machine) -> Check:
    """Judge the memory that is there for anything at all; what a recipe needs is its plan's business."""
    is_right = machine.memory_total_bytes >= MIN_MEMORY_BYTES
    total, free = format_gib(machine.memory_total_bytes), format_gib(machine.memory_available_bytes)
    return Check(
        name="memory",
        status="ok" if is_right else "warn",
        found=f"{total}, {free} available now",
        needed=f"{format_gib(MIN_MEMORY_BYTES)}; `scalellm-trt plan RECIPE` says what a recipe needs",
        fix="" if is_right else "Raise the memory limit of this container or machine.",
    )


def disk(machine: Machine) -> Check:
    """Judge the free disk space."""
    is_right = machine.disk_free_bytes >= MIN_DISK_BYTES
    return Check(
        name="disk",
        status="ok" if is_right else "warn",
        found=f"{format_gib(machine.disk_free_bytes)} free",
        needed=f"{format_gib(MIN_DISK_BYTES)}; `scalellm-trt plan RECIPE` says what a recipe needs",
        fix="" if is_right else "Free some space: `scalellm-trt cache prune` removes artefacts that no recipe uses.",
    )


def package(name: str, found: str | None, toolchain: Toolchain) -> Check:
    """Judge a Python package that every build of the toolchain needs."""
    wanted = host_of(toolchain).packages[name]
    is_right = found is not None and satisfies(found, wanted)
    return Check(
        name=name,
        status="ok" if is_right else "fail",
        found=found or "not installed",
        needed=wanted,
        fix="" if is_right else f"Install the toolchain: {_INSTALL_CPU}",
        backend=toolchain.backend,
    )


def quantize_packages(around: Surroundings, toolchain: Toolchain, *, is_needed: bool) -> Check:
    """Judge the packages of calibrated formats, as one point: they come together."""
    wrong = [
        f"{name} {around.installed.get(name) or 'not installed'}"
        for name, wanted in host_of(toolchain).quantize_packages.items()
        if not satisfies(around.installed.get(name) or "", wanted)
    ]
    needed = ", ".join(f"{name}{wanted}" for name, wanted in host_of(toolchain).quantize_packages.items())
    missing: Status = "fail" if is_needed else "warn"
    return Check(
        name="extra quantize",
        status=missing if wrong else "ok",
        found=", ".join(wrong) or "installed",
        needed=f"{needed}; for calibrated formats only",
        fix=f"For int4_awq: {_INSTALL_QUANTIZE}" if wrong else "",
        backend=toolchain.backend,
    )


def tritonserver(around: Surroundings, toolchain: Toolchain) -> Check:
    """Judge whether there is a tritonserver that can be started."""
    problem = around.tritonserver_problem
    return Check(
        name="tritonserver",
        status="ok" if problem is None else "fail",
        found=around.tritonserver or "none" if problem is None else problem.message,
        needed="on the PATH, or in the wheel nvidia-pytriton",
        fix="" if problem is None else problem.hint or f"Install it: {_INSTALL_CPU}",
        backend=toolchain.backend,
    )


def ports(around: Surroundings) -> Check:
    """Judge whether tritonserver's usual ports are free."""
    taken = {port: user for port, user in around.ports.items() if user is not None}
    found = ", ".join(f"{port}: {user}" for port, user in taken.items())
    return Check(
        name="ports",
        status="warn" if taken else "ok",
        found=found or "free",
        needed=", ".join(str(port) for port in around.ports),
        fix="Stop what listens there, or give `scalellm-trt serve` other ports." if taken else "",
    )


def repository(around: Surroundings) -> Check:
    """Judge the model repository, if there is one."""
    if not around.num_services:
        return Check(
            name="repository",
            status="ok",
            found=f"{around.repository}: {'empty' if around.num_services == 0 else 'not there yet'}",
            needed="`scalellm-trt build RECIPE` makes it",
        )
    wrong = around.repository_problems
    return Check(
        name="repository",
        status="fail" if wrong else "ok",
        found=f"{around.repository}: {'; '.join(wrong) or f'{around.num_services} model(s)'}",
        needed="as it was published",
        fix="Build the service again, or return to its previous version: `scalellm-trt repo rollback`."
        if wrong
        else "",
    )


def gpu(around: Surroundings) -> Check:
    """Say whether there is an NVIDIA driver, with its cards."""
    machine = around.machine
    cards = ", ".join(f"{card.name} ({format_gib(card.memory_bytes)})" for card in machine.gpus)
    return Check(
        name="gpu",
        status="warn" if machine.gpu_problem else "ok",
        found=machine.gpu_problem or cards or "none",
        needed="for GPU recipes only",
        fix="Reinstall the NVIDIA driver, or restart after an update." if machine.gpu_problem else "",
    )


def container_engine(around: Surroundings) -> Check:
    """Say whether there is a container engine."""
    return Check(
        name="container engine",
        status="ok",
        found=around.container_engine or "none",
        needed="for GPU recipes on a machine without their toolchain only",
    )


def host_of(toolchain: Toolchain) -> HostToolchain:
    """Return the host's part of a toolchain that lives on the host."""
    assert toolchain.host is not None, "only toolchains of the host are judged by these checks"
    return toolchain.host


def satisfies(version: str, wanted: str) -> bool:
    """Tell whether a version is in a PEP 440 range; what is no version is not. Local labels (`+cpu`) do not count."""
    try:
        return SpecifierSet(wanted).contains(Version(version).public, prereleases=True)
    except InvalidVersion:
        return False
