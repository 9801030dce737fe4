"""Find tritonserver, on the PATH or in the PyPI wheel, and give it what it needs to run here.

The wheel `nvidia-pytriton` carries a whole tritonserver for CPUs, but expects to be started by its own library:
the python backend looks for a stub beside itself, and the wheel keeps one stub per Python version elsewhere. So
the backend gets a directory of its own, of links, with the stub of the interpreter that runs now.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scalellm_trt.errors import ToolchainError
from scalellm_trt.triton.host import Host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.triton.server_image import ServerImage

PROGRAM_NAME = "tritonserver"
WHEEL = "nvidia-pytriton"
STUB_NAME = "triton_python_backend_stub"
PYTHON_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
_HUGE_PAGES = "glibc.malloc.hugetlb"
WRAPPER_MARK = b"scalellm_trt.triton.passthrough"

_INSTALL_HINT = (
    "Install the embedded CPU stack: pip install 'scalellm-trt[cpu]'; or run inside NVIDIA's Triton image, which "
    "`scalellm-trt serve --container` does for services of a GPU."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBinary:
    """A tritonserver that can be started.

    Attributes:
        executable: the program itself.
        origin: where it was found.
        backend_directory: for `--backend-directory`; None leaves the program's own.
        library_dirs: what LD_LIBRARY_PATH needs.
        program_dirs: what PATH needs. The python backend's stub is isolated from PYTHONPATH and takes the packages
            of the `python3` that it finds there: this is how it comes to a virtual environment's.
        image: the container image that the program is in, under its bare name; None for one of this machine.
    """

    executable: Path
    origin: Literal["path", "wheel", "image"]
    backend_directory: Path | None = None
    library_dirs: tuple[Path, ...] = ()
    program_dirs: tuple[Path, ...] = ()
    image: ServerImage | None = None

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` with what this server needs put in front of what is there."""
        environment = dict(base)
        for variable, directories in (("LD_LIBRARY_PATH", self.library_dirs), ("PATH", self.program_dirs)):
            if directories:
                before = environment.get(variable, "")
                paths = [*(str(directory) for directory in directories), *([before] if before else [])]
                environment[variable] = os.pathsep.join(paths)
        return with_huge_pages(environment) if self.origin == "wheel" else environment


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment`, in which malloc asks for huge pages unless GLIBC_TUNABLES says otherwise already.

    Each step of a model reads all of its weights. With pages of 4 KiB, looking up their addresses takes 5% of a step
    (135M model, 1 and 4 streams, 2 cores of a Xeon; 1% with 64 streams); Linux gives big pages only where it is asked.
    """
    tunables = environment.get("GLIBC_TUNABLES", "")
    if _HUGE_PAGES in tunables:
        return dict(environment)
    return {**environment, "GLIBC_TUNABLES": ":".join(filter(None, (tunables, f"{_HUGE_PAGES}=1")))}


def default_cache_dir() -> Path:
    """Return the user's cache folder for backend directories."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "scalellm-trt" / "tritonserver"


def find(*, search_path: str | None = None, cache_dir: Path | None = None) -> ServerBinary:
    """Return the tritonserver on the PATH, else the one in the wheel, set up.

    Args:
        search_path: used in place of $PATH.
        cache_dir: where backend directories are kept; by default the user's cache folder.

    Raises:
        ToolchainError: there is none, or the wheel's cannot run on this machine; names what to install.
    """
    installed = _on_path(os.environ.get("PATH", os.defpath) if search_path is None else search_path)
    if installed is not None:
        return ServerBinary(executable=installed, origin="path")
    server_dir = _wheel_server_dir()
    if server_dir is None:
        message = f"{PROGRAM_NAME} is neither on the PATH nor in this Python environment ({WHEEL})"
        raise ToolchainError(message, hint=_INSTALL_HINT)
    return from_wheel(server_dir, Host.here(), default_cache_dir() if cache_dir is None else cache_dir)


def from_wheel(server_dir: Path, host: Host, cache_dir: Path) -> ServerBinary:
    """Set up the server of the wheel whose `pytriton/tritonserver` is `server_dir`.

    Raises:
        ToolchainError: this machine or interpreter cannot run it, or `cache_dir` cannot be written.
    """
    host.check()
    stub = server_dir / "python_backend_stubs" / host.python_version / STUB_NAME
    if not stub.is_file():
        versions = sorted(path.parent.name for path in server_dir.glob(f"python_backend_stubs/*/{STUB_NAME}"))
        message = f"{WHEEL} has no python backend for Python {host.python_version}"
        raise ToolchainError(message, hint=f"It has one for: {', '.join(versions) or 'none'}. {_INSTALL_HINT}")
    links = {name: server_dir / "backends" / "python" / name for name in PYTHON_BACKEND_FILES} | {STUB_NAME: stub}
    site_packages = server_dir.parent.parent
    return ServerBinary(
        executable=server_dir / "bin" / PROGRAM_NAME,
        origin="wheel",
        backend_directory=_backend_directory(links, cache_dir),
        library_dirs=(site_packages / "nvidia_pytriton.libs", *host.libpython_search()),
        program_dirs=(host.program_dir,),
    )


def _on_path(search_path: str) -> Path | None:
    """Return the first tritonserver on the path that is not our own wrapper around it."""
    for directory in search_path.split(os.pathsep):
        found = shutil.which(PROGRAM_NAME, path=directory) if directory else None
        if found is not None and not _is_our_wrapper(Path(found)):
            return Path(found)
    return None


def _is_our_wrapper(program: Path) -> bool:
    try:
        with program.open("rb") as stream:
            return WRAPPER_MARK in stream.read(4096)
    except OSError:
        return False


def _wheel_server_dir() -> Path | None:
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        return None
    server_dir = Path(spec.origin).parent / PROGRAM_NAME
    return server_dir if (server_dir / "bin" / PROGRAM_NAME).is_file() else None


def _backend_directory(links: Mapping[str, Path], cache_dir: Path) -> Path:
    """Return a directory with `python/` made of `links`; several commands may make it at the same time."""
    key = hashlib.sha256("\n".join(f"{name}={target}" for name, target in sorted(links.items())).encode()).hexdigest()
    directory = cache_dir / f"backends-{key[:12]}"
    if _is_complete(directory, links):
        return directory
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=cache_dir, prefix=".making-"))
        (temporary / "python").mkdir()
        for name, target in links.items():
            (temporary / "python" / name).symlink_to(target)
        if directory.exists():
            directory.rename(temporary / "damaged")
        temporary.chmod(0o755)
        _settle(temporary, directory, links)
    except OSError as error:
        message = f"{cache_dir}: the python backend cannot be set up: {error.strerror or error}"
        raise ToolchainError(
            message, hint="Make the folder writable, or name another one in XDG_CACHE_HOME."
        ) from error
    return directory


def _settle(temporary: Path, directory: Path, links: Mapping[str, Path]) -> None:
    try:
        temporary.rename(directory)
    except OSError:
        shutil.rmtree(temporary)
        if not _is_complete(directory, links):  # else another command was first
            raise
    shutil.rmtree(directory / "damaged", ignore_errors=True)


def _is_complete(directory: Path, links: Mapping[str, Path]) -> bool:
    return all(
        (directory / "python" / name).is_symlink()
        and (directory / "python" / name).resolve() == target.resolve()
        and target.is_file()
        for name, target in links.items()
    )
