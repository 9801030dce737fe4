"""What `scripts/environment.sh` decides: which interpreter and machine will do, and whether to install anything."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def _bash(program: str, cwd: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run bash in `cwd` after reading the script; `programs` stand in front of those of the PATH."""
    bin_dir = cwd / "bin"
    bin_dir.mkdir(exist_ok=True)
    for name, body in programs.items():
        (bin_dir / name).write_text(f"#!/bin/sh\n{body}\n")
        (bin_dir / name).chmod(0o755)
    path = f"{bin_dir}:/usr/local/bin:/usr/bin:/bin"
    argv = ["bash", "-euo", "pipefail", "-c", f". {shlex.quote(str(ROOT / 'scripts/environment.sh'))}\n{program}"]
    return subprocess.run(argv, cwd=cwd, env={"PATH": path}, capture_output=True, text=True, check=False)


def _python_where(patch: str) -> str:
    """Return a program that is this interpreter after `patch` was executed in it."""
    program = f"{patch}\nexec(open(0).read())"
    return f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}"


NO_VENV = (
    "import importlib.util as u; find = u.find_spec; u.find_spec = lambda n: None if n == 'ensurepip' else find(n)"
)
NO_LIBPYTHON = """
import ctypes, sysconfig
def fail(name): raise OSError
ctypes.CDLL, sysconfig.get_config_var = fail, lambda name: "/nowhere"
"""


@pytest.mark.parametrize(
    ("patch", "problem"),
    [
        ("import sys; sys.version_info = (3, 9, 18)", "Python 3.9 is outside 3.10-3.12"),
        ("import sys; sys.version_info = (3, 13, 0)", "Python 3.13 is outside 3.10-3.12"),
        (NO_VENV, f"venv is missing: install python{VERSION}-venv"),
        (NO_LIBPYTHON, f"libpython{VERSION}.so.1.0 is missing: install libpython{VERSION} (Debian, Ubuntu)"),
        ("raise SystemExit(1)", "cannot be run"),
    ],
)
def test_what_an_interpreter_lacks_is_named(tmp_path: Path, patch: str, problem: str) -> None:
    done = _bash("PYTHON=mypython; choose_interpreter", tmp_path, mypython=_python_where(patch))
    assert done.returncode == 4
    assert f"mypython: {problem}" in done.stderr


def test_the_first_interpreter_that_will_do_is_taken(tmp_path: Path) -> None:
    good, old = _python_where(""), _python_where("import sys; sys.version_info = (3, 9, 18)")
    programs = {"python3.12": old, "python3.11": good, "python3.10": good}
    done = _bash("choose_interpreter; echo $PYTHON", tmp_path, **programs)
    assert (done.returncode, Path(done.stdout.strip()).name) == (0, "python3.11")


@pytest.mark.parametrize(
    ("programs", "problem"),
    [
        ({"getconf": "echo glibc 2.31"}, "glibc is 2.31; the tritonserver wheel needs 2.35 or newer"),
        ({"getconf": "exit 1"}, "glibc is not found"),
        ({"uname": 'test "$1" = -s && echo Linux || echo aarch64'}, "this is aarch64"),
        ({"uname": "echo Darwin"}, "this is Darwin"),
        ({"df": "echo; echo dev 1 1 500 1 /"}, "500 MiB are free"),
    ],
)
def test_what_a_machine_lacks_is_named(tmp_path: Path, programs: dict[str, str], problem: str) -> None:
    fine = {
        "getconf": "echo glibc 2.36",
        "uname": 'test "$1" = -s && echo Linux || echo x86_64',
        "df": "echo; echo d 1 1 9999",
    }
    assert _bash("check_machine", tmp_path, **fine).returncode == 0
    done = _bash("check_machine", tmp_path, **(fine | programs))
    assert done.returncode == 4
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("installed", "is_enough"),
    [
        ("", False),
        ("cpu now\n", True),
        ("cpu before\n", False),
        ("cpu,quantize,dev now\n", True),
        ("quantize,dev now\n", False),
        ("dev now\ncpu now\n", True),
    ],
)
def test_a_set_of_extras_is_installed_with_any_larger_one(tmp_path: Path, installed: str, is_enough: bool) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").write_text(installed)
    assert (_bash("is_installed cpu now", tmp_path).returncode == 0) is is_enough


def test_a_linked_venv_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / ".venv").symlink_to("other")
    done = _bash("ensure_environment cpu", tmp_path)
    assert done.returncode == 0
    assert "used as it is" in done.stdout
    assert not list((tmp_path / "other").iterdir())
