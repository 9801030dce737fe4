"""gpu_machine: what the probe finds, judged against a toolchain and a card."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import facts
from scalellm_trt.backends import gpu_machine, toolchain_probe
from scalellm_trt.backends.gpu_machine import GpuMachine, problems, same_release, stamp
from scalellm_trt.detect import nvidia
from scalellm_trt.errors import StageError, ToolchainError
from tests.fakes import gpus
from tests.fakes.gpu_bench import bench

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.facts import GpuToolchain

HARDWARE = facts.hardware()["rtx4090"]


def toolchain(name: str = "tensorrt-llm-1.2.1") -> GpuToolchain:
    row = facts.toolchains()[name].gpu
    assert row is not None
    return row


def answer(*cards: dict[str, str | int], **changes: str | None) -> str:
    packages = {"tensorrt": "10.14.1.48", "tensorrt_llm": "1.2.1", "modelopt": None, **changes}
    lines = [", ".join(str(card[field]) for field in nvidia.FIELDS) for card in cards]
    return json.dumps({"trtllm_build": "/x/trtllm-build", "python": "/x/python", "packages": packages, "cards": lines})


def machine(*cards: dict[str, str | int], **changes: str | None) -> GpuMachine:
    return gpu_machine.parse(answer(*cards, **changes), image=None)


def test_the_right_machine_has_no_problem_and_gives_a_stamp() -> None:
    found = machine(gpus.card("rtx4090"))
    assert problems(found, toolchain(), HARDWARE) == []
    made = stamp(found, toolchain())
    assert (made.gpu_name, made.driver_floor) == ("NVIDIA GeForce RTX 4090", "580")


def test_every_problem_is_told_at_once() -> None:
    found = machine(gpus.card("t4", driver_version="470.1"), tensorrt=None, tensorrt_llm="1.1.0")
    wrong = problems(dataclasses.replace(found, trtllm_build=None), toolchain(), HARDWARE)
    assert [line.split(" ")[0] for line in wrong] == ["there", "tensorrt_llm", "tensorrt", "the", "the"]


def test_without_a_card_nothing_can_be_stamped() -> None:
    assert problems(machine(), toolchain(), HARDWARE) == ["nvidia-smi shows no card"]
    with pytest.raises(StageError, match="cannot be read any more"):
        stamp(machine(), toolchain())


def test_the_cards_that_cuda_may_see_count(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = (gpus.card("rtx3090", 0), gpus.card("rtx4090", 1))
    assert problems(machine(*cards), toolchain(), HARDWARE) != []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert problems(machine(*cards), toolchain(), HARDWARE) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1234")
    assert len(machine(*cards).cards) == 2


@pytest.mark.parametrize(
    ("found", "wanted", "same"),
    [
        ("10.4.0.26", "10.4.0", True),
        ("10.4.0", "10.4.0.26", True),
        ("1.2.1+cu131", "1.2.1", True),
        ("1.2.1rc1", "1.2.1", False),
        ("1.2.1.dev3", "1.2.1", False),
        ("10.13.3.9", "10.14.1.48", False),
        ("nonsense", "1.2.1", False),
    ],
)
def test_versions_are_compared_as_far_as_both_go(found: str, wanted: str, same: bool) -> None:
    assert same_release(found, wanted) is same


def test_the_probe_reads_the_versions_of_the_builders_own_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench(tmp_path / "machine", monkeypatch, toolchain="tensorrt-llm-0.13.0", hardware="t4")
    out = tmp_path / "probe.json"
    fields = ",".join(nvidia.FIELDS)
    # -I hides PYTHONPATH, as an interpreter does that has the packages of another environment.
    subprocess.run([sys.executable, "-I", toolchain_probe.__file__, str(out), fields], check=True)
    found = gpu_machine.parse(out.read_text(), image="i")
    assert (found.tensorrt_llm, found.tensorrt, found.image) == (
        "0.13.0",
        toolchain("tensorrt-llm-0.13.0").tensorrt,
        "i",
    )
    assert found.cards[0].name == "Tesla T4"


@pytest.mark.parametrize("first_line", ["#!{python}", "#!/usr/bin/env python3", "#!{python} -E"])
def test_the_interpreter_is_the_one_of_the_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_line: str
) -> None:
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    script = tmp_path / "trtllm-build"
    script.write_text(first_line.format(python=python) + "\n")
    assert toolchain_probe.interpreter_of(str(script)) == str(python)


def test_a_binary_names_no_interpreter(tmp_path: Path) -> None:
    (tmp_path / "trtllm-build").write_bytes(b"\x7fELF\x02\x01\n")
    assert toolchain_probe.interpreter_of(str(tmp_path / "trtllm-build")) is None


def test_a_probe_that_says_nothing_usable_is_a_toolchain_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="inside i"):
        gpu_machine.look(lambda argv, out: ["true"], image="i", python="python3", log=tmp_path / "x.log")
