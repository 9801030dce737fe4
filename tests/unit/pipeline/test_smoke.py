"""smoke: what a service must keep to be published; decided on answers, whoever gives them."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import ServerNotReadyError, ThresholdMissedError
from scalellm_trt.pipeline import gate, smoke
from tests.fakes.plans import gpu_plan, tiny_plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIMITS = dataclasses.replace(smoke.limits(), max_seconds_after_cancel=0.5)


class Service:
    """Answers with the prompt's words, as an engine without a fault does."""

    def __init__(self) -> None:
        self.num_asked = 0
        self.cancelled: list[str] = []

    def answer(self, prompt: str, max_tokens: int) -> str:
        self.num_asked += 1
        return f" {prompt}"[: 4 * max_tokens]

    def cancel_after_first(self, prompts: Sequence[str], max_tokens: int) -> None:
        self.cancelled.extend(prompts)


class Silent(Service):
    def answer(self, prompt: str, max_tokens: int) -> str:
        return " \n"


class Unstable(Service):
    """Wrong as an engine is whose reused cache blocks hold something else."""

    def answer(self, prompt: str, max_tokens: int) -> str:
        answer = super().answer(prompt, max_tokens)
        return answer if self.num_asked != len(LIMITS.prompts) + 3 else answer + "!"


class NeverCancelling(Service):
    def answer(self, prompt: str, max_tokens: int) -> str:
        if self.cancelled:
            import time

            time.sleep(0.6)
        return super().answer(prompt, max_tokens)


class Broken(Service):
    def answer(self, prompt: str, max_tokens: int) -> str:
        raise ServerNotReadyError("127.0.0.1:8001: the server failed")


def run(service: Service, reference: Sequence[str] | None = None) -> smoke.SmokeReport:
    return smoke.run(service, LIMITS, reference=reference, num_places=3)


def test_a_good_service_passes_and_as_many_are_cancelled_as_it_has_places() -> None:
    service = Service()
    report = run(service, [f" {prompt}" for prompt in LIMITS.prompts])
    assert report.problems == ()
    assert report.agreement == 1.0
    assert len(service.cancelled) == 3


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        (Silent(), "10 of 10 prompts got no text"),
        (Unstable(), "1 of 10 prompts got another answer when repeated"),
        (NeverCancelling(), "a short question took 1 s after others were cancelled"),
        (Broken(), "the server failed"),
    ],
)
def test_each_fault_is_found(service: Service, problem: str) -> None:
    [found] = run(service).problems
    assert problem in found


def test_answers_that_part_early_from_the_reference_are_refused() -> None:
    report = run(Service(), [f"x{prompt}" for prompt in LIMITS.prompts])
    assert report.agreement == 0.0
    assert report.problems == ("answers agree with the reference engine by 0%, wanted are 50% (estimate)",)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [("", "", 1.0), ("abcd", "abcd", 1.0), ("abxx", "abcd", 0.5), ("ab", "abcd", 0.5), ("", "abcd", 0.0)],
)
def test_agreement_is_what_is_shared_from_the_start(answer: str, reference: str, expected: float) -> None:
    assert smoke.agreement(answer, reference) == expected


def test_a_refusal_ends_the_build_with_8_and_leaves_the_answers(tmp_path: Path) -> None:
    with pytest.raises(ThresholdMissedError, match="nothing is published") as caught:
        gate.judge(Silent(), gpu_plan(), tmp_path, name="tiny")
    assert caught.value.exit_code == 8
    kept = json.loads((tmp_path / "tiny" / "smoke.json").read_text())
    assert kept["answers"] == [" \n"] * len(LIMITS.prompts)
    gate.judge(Service(), gpu_plan(), tmp_path, name="tiny")
    assert json.loads((tmp_path / "tiny" / "smoke.json").read_text())["problems"] == []


def test_only_engines_of_gpu_toolchains_are_gated() -> None:
    assert gate.is_needed(gpu_plan())
    assert not gate.is_needed(tiny_plan())


def test_the_cpu_is_asked_where_it_can_run_the_checkpoint() -> None:
    assert gate.can_have_reference(gpu_plan(weights="int8_wo"), 8 << 30)
    assert not gate.can_have_reference(gpu_plan(weights="fp8"), 8 << 30)
    assert not gate.can_have_reference(gpu_plan(weights="int8_wo"), 1 << 30)
    assert not gate.can_have_reference(gpu_plan(weights="int8_wo", tp_size=2), 8 << 30)
    assert not gate.can_have_reference(gpu_plan(weights="int4_awq", toolchain="tensorrt-llm-1.3"), 8 << 30)
