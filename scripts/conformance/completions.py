"""`/v1/completions`."""

from __future__ import annotations

from scripts.conformance.registry import check
from scripts.conformance.target import COUNTING, Target, equal, joined, need, whole_text, works_or_is_refused


@check("completion", "the object has id, type and model")
def _object(target: Target) -> None:
    answer = target.complete(max_tokens=2)
    need(answer.id.startswith("cmpl-"), answer.id)
    equal((answer.object, answer.model), ("text_completion", target.model))


@check("completion", "16 tokens are the default")
def _default(target: Target) -> None:
    answer = target.complete()
    equal((answer.usage.completion_tokens, answer.choices[0].finish_reason), (16, "length"))


@check("completion", "no chat template is applied")
def _raw(target: Target) -> None:
    few = target.complete("Hi", max_tokens=1).usage.prompt_tokens
    need(few <= 3, f"{few} tokens")


@check("completion", "a stream joins to the whole text")
def _stream(target: Target) -> None:
    equal(joined(target.complete(max_tokens=20, stream=True)), whole_text(target.complete(max_tokens=20)))


@check("completion", "token ids are a prompt")
def _ids(target: Target) -> None:
    equal(target.complete([100, 200, 300], max_tokens=2).usage.prompt_tokens, 3)


@check("completion", "several prompts are answered in order")
def _several(target: Target) -> None:
    prompts = ["One, two,", COUNTING]
    answer = works_or_is_refused("prompt", lambda: target.complete(prompts, max_tokens=8))
    if answer is not None:
        alone = [whole_text(target.complete(prompt, max_tokens=8)) for prompt in prompts]
        equal([choice.text for choice in answer.choices], alone)


@check("completion", "echo works or is refused")
def _echo(target: Target) -> None:
    answer = works_or_is_refused("echo", lambda: target.complete(max_tokens=4, echo=True))
    if answer is not None:
        equal(whole_text(answer), COUNTING + whole_text(target.complete(max_tokens=4)))


@check("completion", "suffix works or is refused")
def _suffix(target: Target) -> None:
    works_or_is_refused("suffix", lambda: target.complete(max_tokens=4, suffix=" 9"))


@check("completion", "best_of works or is refused")
def _best_of(target: Target) -> None:
    answer = works_or_is_refused("best_of", lambda: target.complete(max_tokens=4, best_of=2, temperature=1.0))
    if answer is not None:
        equal(len(answer.choices), 1)
        need(answer.usage.completion_tokens > 4, f"best_of was ignored: {answer.usage}")
