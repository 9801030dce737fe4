"""What the embedded tritonserver needs from this machine and this interpreter, and what to install where it lacks."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from scalellm_trt.errors import ToolchainError

MIN_GLIBC = (2, 35)
MACHINE = "x86_64"
# With numpy 2 a text input kills the stub of Triton 2.51.
MAX_NUMPY_MAJOR = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine and the interpreter.

    Attributes:
        system, machine: as `platform` names them.
        glibc: version; None for another C library.
        python_version: such as `3.11`.
        libpython_name: file name of the interpreter's shared library.
        libpython_dirs: where that library may be, likeliest first.
        program_dir: where the interpreter is, and `python3` beside it.
        numpy_version: None where numpy is not installed.
        is_numpy_of_user: whether it is in the user's own site-packages, which the python backend does not read.
    """

    system: str
    machine: str
    glibc: tuple[int, int] | None
    python_version: str
    libpython_name: str
    libpython_dirs: tuple[Path, ...]
    program_dir: Path
    numpy_version: str | None
    is_numpy_of_user: bool

    @classmethod
    def here(cls) -> Host:
        """Look at the machine and the interpreter that run this."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return cls(
            system=platform.system(),
            machine=platform.machine(),
            glibc=_glibc(),
            python_version=version,
            libpython_name=f"libpython{version}.so.1.0",
            libpython_dirs=_library_dirs(),
            program_dir=Path(sys.executable).parent,
            numpy_version=_version_of("numpy"),
            is_numpy_of_user=_is_of_user("numpy"),
        )

    def check(self) -> None:
        """Refuse a machine that cannot run the embedded tritonserver.

        Raises:
            ToolchainError: names what is wrong and what to install.
        """
        image = "Run inside NVIDIA's Triton image instead."
        if (self.system, self.machine) != ("Linux", MACHINE):
            message = f"the embedded tritonserver runs on Linux {MACHINE}, this is {self.system} {self.machine}"
            raise ToolchainError(message, hint=image)
        if self.glibc is None or self.glibc < MIN_GLIBC:
            found = "another C library" if self.glibc is None else "glibc " + ".".join(map(str, self.glibc))
            needed = ".".join(map(str, MIN_GLIBC))
            message = f"the embedded tritonserver needs glibc {needed} or later, found: {found}"
            raise ToolchainError(message, hint=f"Ubuntu 22.04, Debian 12, Fedora 36 and later have it. {image}")
        if self.numpy_version is None or int(self.numpy_version.split(".")[0]) > MAX_NUMPY_MAJOR:
            message = f"the embedded tritonserver needs numpy 1.x, found: {self.numpy_version or 'no numpy'}"
            raise ToolchainError(message, hint="Install it: pip install 'numpy<2'")
        if self.is_numpy_of_user:
            message = "numpy is in the user's site-packages, which the python backend of tritonserver does not read"
            raise ToolchainError(message, hint="Install into a virtual environment: scripts/quickstart makes one.")
        self.libpython_search()

    def libpython_search(self) -> tuple[Path, ...]:
        """Return the folder to add to the loader's search for libpython.

        Raises:
            ToolchainError: the interpreter's shared library is not on this machine.
        """
        for directory in self.libpython_dirs:
            if (directory / self.libpython_name).exists():
                return (directory,)
        message = f"{self.libpython_name} is missing, the python backend of tritonserver is linked against it"
        hint = (
            f"Debian, Ubuntu: apt-get install libpython{self.python_version}. Fedora: dnf install "
            f"python{self.python_version}-libs. pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install again."
        )
        raise ToolchainError(message, hint=hint)


def _glibc() -> tuple[int, int] | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        major, minor = version.split(".")[:2]
        return (int(major), int(minor)) if name == "glibc" else None
    except (ValueError, OSError):
        return None


def _library_dirs() -> tuple[Path, ...]:
    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{MACHINE}-linux-gnu"
    candidates = [
        sysconfig.get_config_var("LIBDIR"),
        str(Path(sys.base_prefix) / "lib"),
        f"/usr/lib/{multiarch}",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    ]
    return tuple(dict.fromkeys(Path(candidate) for candidate in candidates if candidate))


def _is_of_user(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(site.getusersitepackages())


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
