"""A served model in, a verdict out: does it answer, the same when asked again, like the reference, and can it cancel?

Works on any server that has our text contract; the gate of a build runs it before the service is published.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Protocol

import yaml

from scalellm_trt.errors import ScaleLLMError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeLimits:
    """`data/smoke.yaml`: the questions and what the answers must keep.

    Attributes:
        min_agreement: of `agreement`, mean over the prompts.
    """

    prompts: tuple[str, ...]
    max_tokens: int
    min_agreement: float
    cancelled_max_tokens: int
    max_seconds_after_cancel: float


class Asker(Protocol):
    """A text model that can be asked greedily."""

    def answer(self, prompt: str, max_tokens: int) -> str:
        """Return the whole answer."""
        ...

    def cancel_after_first(self, prompts: Sequence[str], max_tokens: int) -> None:
        """Ask all at the same time, and cancel each after its first chunk."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeReport:
    """What was seen.

    Attributes:
        agreement: mean over the prompts, 0..1; None without a reference.
        seconds_after_cancel: of a short question behind cancelled ones.
        problems: why the service must not be published, one line each.
    """

    answers: tuple[str, ...]
    agreement: float | None
    seconds_after_cancel: float
    problems: tuple[str, ...]


def limits() -> SmokeLimits:
    """Return the shipped questions and limits."""
    row = yaml.safe_load(resources.files("scalellm_trt").joinpath("data/smoke.yaml").read_text(encoding="utf-8"))
    return SmokeLimits(
        prompts=tuple(str(prompt) for prompt in row["prompts"]),
        max_tokens=int(row["max_tokens"]),
        min_agreement=float(row["min_agreement"]),
        cancelled_max_tokens=int(row["cancelled_max_tokens"]),
        max_seconds_after_cancel=float(row["max_seconds_after_cancel"]),
    )


def run(asker: Asker, wanted: SmokeLimits, *, reference: Sequence[str] | None, num_places: int) -> SmokeReport:
    """Ask everything and judge it; a server that fails is a problem, not an exception.

    Args:
        asker: the service.
        wanted: questions and limits.
        reference: the answer to each prompt by an engine of the same checkpoint that is trusted; None without one.
        num_places: requests that the engine runs at a time; as many are cancelled.
    """
    try:
        first = [asker.answer(prompt, wanted.max_tokens) for prompt in wanted.prompts]
        # Again in the other order: blocks of a reused KV cache are then found, and evicted, differently.
        again = [asker.answer(prompt, wanted.max_tokens) for prompt in reversed(wanted.prompts)][::-1]
        cancelled = [wanted.prompts[number % len(wanted.prompts)] for number in range(num_places)]
        asker.cancel_after_first(cancelled, wanted.cancelled_max_tokens)
        started = time.monotonic()
        behind = asker.answer(wanted.prompts[0], wanted.max_tokens)
        seconds = time.monotonic() - started
    except ScaleLLMError as error:
        return SmokeReport(answers=(), agreement=None, seconds_after_cancel=0.0, problems=(error.message,))
    agreement = None if reference is None else _mean_agreement(first, reference)
    problems = [
        *_silent(wanted, first),
        *_unstable(wanted, first, again),
        *_drifted(wanted, agreement),
        *_slow(wanted, seconds, is_same=behind == first[0]),
    ]
    return SmokeReport(
        answers=tuple(first), agreement=agreement, seconds_after_cancel=seconds, problems=tuple(problems)
    )


def agreement(answer: str, reference: str) -> float:
    """Return characters shared from the start / characters of the longer text; 1.0 for two empty ones."""
    longer = max(len(answer), len(reference))
    shared = next((at for at, pair in enumerate(zip(answer, reference, strict=False)) if pair[0] != pair[1]), None)
    return 1.0 if not longer else (min(len(answer), len(reference)) if shared is None else shared) / longer


def _mean_agreement(answers: Sequence[str], reference: Sequence[str]) -> float:
    return sum(agreement(*pair) for pair in zip(answers, reference, strict=True)) / len(answers)


def _silent(wanted: SmokeLimits, answers: Sequence[str]) -> list[str]:
    silent = [prompt for prompt, answer in zip(wanted.prompts, answers, strict=True) if not answer.strip()]
    if len(silent) * 2 <= len(answers):
        return []
    return [f"{len(silent)} of {len(answers)} prompts got no text, the first is {silent[0]!r}"]


def _unstable(wanted: SmokeLimits, first: Sequence[str], again: Sequence[str]) -> list[str]:
    changed = [
        (prompt, *pair) for prompt, *pair in zip(wanted.prompts, first, again, strict=True) if pair[0] != pair[1]
    ]
    if not changed:
        return []
    prompt, before, after = changed[0]
    return [
        f"{len(changed)} of {len(first)} prompts got another answer when repeated (KV-cache reuse?): "
        f"{prompt!r} gave {before!r}, then {after!r}"
    ]


def _drifted(wanted: SmokeLimits, found: float | None) -> list[str]:
    if found is None or found >= wanted.min_agreement:
        return []
    return [f"answers agree with the reference engine by {found:.0%}, wanted are {wanted.min_agreement:.0%} (estimate)"]


def _slow(wanted: SmokeLimits, seconds: float, *, is_same: bool) -> list[str]:
    problems = [] if is_same else ["a prompt got another answer after others had been cancelled"]
    if seconds > wanted.max_seconds_after_cancel:
        problems.append(f"a short question took {seconds:.0f} s after others were cancelled: they go on inside")
    return problems
