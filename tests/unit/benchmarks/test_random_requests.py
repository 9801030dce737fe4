"""The soak's crowd: what it calls bad is refused by that name, and the rest is understood."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.runtime import admission, request, signature
from scalellm_trt.runtime.engine_api import InvalidRequestError
from scalellm_trt.runtime.engine_openvino import UNSUPPORTED_INPUTS
from scalellm_trt.runtime.inputs import Inputs
from scalellm_trt.runtime.tokenizer import PromptTokenizer
from scripts.benchmarks.sides.random_requests import WEIGHTS, Crowd
from tests.fakes import small_tokenizer
from tests.fakes.pipelines import settings

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.benchmarks.sides.random_requests import RandomRequest

LIMITS = settings(max_input_len=400, max_seq_len=600, kv_cache_tokens=1024, max_batch_size=4)


def _answer(asked: RandomRequest, tokenizer: PromptTokenizer) -> str | None:
    """Return the refusal of a request, None where it is taken."""
    names = {tensor.name: tensor.data_type for tensor in signature.INPUTS}
    if asked.inputs.keys() - names.keys() or asked.inputs["max_tokens"].dtype.kind != "i":
        return asked.refusal
    try:
        parsed = request.parse(Inputs(asked.inputs), tokenizer, LIMITS, UNSUPPORTED_INPUTS)
        admission.check(parsed.generate, LIMITS)
    except InvalidRequestError as error:
        return str(error)
    return None


def test_bad_requests_are_refused_by_name_and_the_others_taken(tmp_path: Path) -> None:
    small_tokenizer.write(tmp_path)
    tokenizer = PromptTokenizer(tmp_path, LIMITS)
    crowd = Crowd(1, LIMITS, ["the", "e", "a"])
    requests = [crowd.next() for _ in range(1500)]
    assert {asked.kind for asked in requests} == set(WEIGHTS)
    for asked in requests:
        refusal = _answer(asked, tokenizer)
        if asked.refusal is None:
            assert refusal is None, asked.inputs
        else:
            assert asked.refusal in (refusal or ""), asked.inputs
    assert len({asked.refusal for asked in requests}) > len(WEIGHTS)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_seed_makes_the_same_crowd(seed: int) -> None:
    first, again = (Crowd(seed, LIMITS, ["the"]) for _ in range(2))
    for _ in range(50):
        one, other = first.next(), again.next()
        assert (one.kind, one.refusal, one.inputs.keys()) == (other.kind, other.refusal, other.inputs.keys())
