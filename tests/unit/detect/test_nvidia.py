from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt import detect
from scalellm_trt.detect import nvidia
from tests.fakes import gpus

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def shown(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> detect.Gpus:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return nvidia.look()


def test_a_card_is_what_nvidia_smi_says_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card = gpus.card("rtx4090", memory_free=22100, display_active="Enabled")
    found = shown(monkeypatch, gpus.environment([card]))
    assert found == detect.Gpus(
        gpus=(
            detect.Gpu(
                index=0,
                name="NVIDIA GeForce RTX 4090",
                uuid="GPU-00000000-0000-0000-0000-000000000000",
                compute_capability="8.9",
                memory_bytes=24564 * MIB,
                memory_free_bytes=22100 * MIB,
                driver_version="590.44.01",
                has_display=True,
                has_mig=False,
            ),
        ),
        problem=None,
    )


def test_every_card_is_found_in_the_order_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [gpus.card("a100-80g", mig_mode_current="Enabled"), gpus.card("t4", index=1)]
    found = shown(monkeypatch, gpus.environment(cards)).gpus
    assert [(card.index, card.compute_capability, card.has_mig) for card in found] == [
        (0, "8.0", True),
        (1, "7.5", False),
    ]


def test_the_machine_at_hand_has_the_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown(monkeypatch, gpus.environment([gpus.card("l4")]))
    machine = detect.machine(tmp_path)
    assert [card.name for card in machine.gpus] == ["NVIDIA L4"]
    assert machine.gpu_problem is None


def test_no_nvidia_smi_is_a_normal_answer(tmp_path: Path) -> None:
    assert nvidia.look(str(tmp_path / "nothing")) == detect.Gpus(gpus=(), problem=None)


@pytest.mark.parametrize(
    ("says", "exit_code"),
    [
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", 9),
        ("Failed to initialize NVML: Driver/library version mismatch", 18),
        ("No devices were found", 6),
    ],
)
def test_a_broken_nvidia_smi_is_told_in_its_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, exit_code: int
) -> None:
    found = shown(monkeypatch, gpus.broken(says, exit_code))
    assert found == detect.Gpus(gpus=(), problem=f"nvidia-smi: {says}")
    assert detect.machine(tmp_path).gpu_problem == f"nvidia-smi: {says}"


def test_a_driver_that_is_too_old_for_the_question_still_tells_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    card = gpus.card("t4", driver_version="470.57.02")
    del card["compute_cap"]
    found = shown(monkeypatch, gpus.environment([card]))
    assert found.gpus == ()
    assert found.problem == 'nvidia-smi: Field "compute_cap" is not a valid field to query. (driver 470.57.02)'


def test_a_card_that_has_no_memory_of_its_own_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    card = gpus.card("h100", name="NVIDIA GB10", memory_total="[N/A]")
    assert shown(monkeypatch, gpus.environment([card])).problem == "nvidia-smi says memory.total [N/A] for NVIDIA GB10"


def test_what_is_no_answer_is_the_problem() -> None:
    assert nvidia.parse(["Segmentation fault"]).problem == "nvidia-smi: Segmentation fault"
    assert nvidia.parse([]).problem == "nvidia-smi names no card"


def test_a_failure_without_a_word_tells_how_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, gpus.broken("", 12)).problem == "nvidia-smi: exit code 12"
