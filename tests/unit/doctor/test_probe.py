from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.doctor import probe
from tests.fakes import images
from tests.fakes.gpus import FAKE_PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("PATH", f"{FAKE_PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    return monkeypatch


def look(root: Path, patch: pytest.MonkeyPatch, **changes: Any) -> probe.Installation:
    folder = images.make(root, **changes)
    patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return probe.look(root)


def test_an_image_is_told_by_its_files_without_importing_anything(tmp_path: Path, programs: pytest.MonkeyPatch) -> None:
    programs.setenv("NVIDIA_TRITON_SERVER_VERSION", "26.07")
    found = look(tmp_path, programs)
    assert found.is_there
    assert found.triton_release == "26.07"
    assert found.backend_libraries == ("/opt/tritonserver/backends/tensorrtllm/libtriton_tensorrtllm.so",)
    assert found.trtllm_build == str(tmp_path / "opt/venv-tritonserver/bin/trtllm-build")
    assert (found.tensorrt_llm, found.tensorrt) == ("1.2.1", "10.14.1.48.post1")


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("echo", ()),
        ("echo tokenizers", ("tokenizers",)),
        ("exit 1", ("numpy", "tokenizers")),
    ],
)
def test_the_python_of_the_image_is_asked_for_what_the_text_model_imports(
    tmp_path: Path, programs: pytest.MonkeyPatch, script: str, missing: tuple[str, ...]
) -> None:
    folder = images.make(tmp_path)
    (folder / "python3").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "python3").chmod(0o755)
    programs.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    found = probe.look(tmp_path)
    assert found.python == str(folder / "python3")
    assert found.missing_modules == missing


def test_a_real_python_finds_numpy_and_no_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe.missing_modules(sys.executable) == ()
    monkeypatch.setattr(probe, "MODULES", ("numpy", "no_such_module"))
    assert probe.missing_modules(sys.executable) == ("no_such_module",)


def test_the_kernels_are_those_that_cuobjdump_lists(tmp_path: Path, programs: pytest.MonkeyPatch) -> None:
    found = look(tmp_path, programs, kernels="sm_90a sm_80 sm_89 sm_80 sm_120f sm_103", plugin_kernels="sm_80")
    assert found.kernels == {
        "libtensorrt_llm.so": ("8.0", "8.9", "9.0", "10.3", "12.0"),
        "libnvinfer_plugin_tensorrt_llm.so": ("8.0",),
    }
    assert found.kernels_problem is None


def test_a_library_without_device_code_does_not_count(tmp_path: Path, programs: pytest.MonkeyPatch) -> None:
    assert set(look(tmp_path, programs).kernels) == {"libtensorrt_llm.so"}


def test_a_failing_cuobjdump_is_told_in_its_own_words(tmp_path: Path, programs: pytest.MonkeyPatch) -> None:
    found = look(tmp_path, programs, kernels="broken")
    assert found.kernels == {}
    assert "Could not open input file" in str(found.kernels_problem)


def test_without_cuobjdump_the_kernels_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = images.make(tmp_path)
    monkeypatch.setenv("PATH", str(folder))
    assert probe.look(tmp_path).kernels_problem == "cuobjdump is not installed"


def test_tensorrt_without_a_package_is_known_by_its_library(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr/lib/x86_64-linux-gnu/libnvinfer.so.10").touch()
    (tmp_path / "usr/lib/x86_64-linux-gnu/libnvinfer.so.10.4.0").touch()
    assert probe.look(tmp_path).tensorrt == "10.4.0"


def test_an_empty_machine_has_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = probe.look(tmp_path)
    assert not found.is_there
    assert (found.tensorrt, found.tensorrt_llm, found.backend_libraries, found.kernels) == (None, None, (), {})


def test_it_runs_alone_with_the_standard_library_and_prints_what_can_be_read_back() -> None:
    printed = subprocess.run(
        [sys.executable, "-I", "-S", probe.__file__], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    found = probe.from_json(printed)
    assert isinstance(found.kernels, dict)
    assert probe.from_json(probe.to_json(found)) == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kernels": 3}', "== Triton =="])
def test_what_the_probe_did_not_print_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not what the probe prints"):
        probe.from_json(text)
