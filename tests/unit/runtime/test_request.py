"""Every input of the contract means what it means in NVIDIA's ensemble, or is refused by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.runtime import request as text_request
from scalellm_trt.runtime import signature
from scalellm_trt.runtime.engine_api import InvalidRequestError
from scalellm_trt.runtime.engine_openvino import UNSUPPORTED_INPUTS
from scalellm_trt.runtime.inputs import Inputs
from scalellm_trt.runtime.tokenizer import PromptTokenizer
from tests.fakes import small_tokenizer
from tests.fakes.pipelines import settings

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.runtime.request import AnswerOptions, TextRequest

DTYPES: dict[str, type[np.generic]] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_INT32": np.int32,
    "TYPE_UINT64": np.uint64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_STRING": np.object_,
}
TYPES = {tensor.name: DTYPES[tensor.data_type] for tensor in signature.INPUTS}
BASE: dict[str, object] = {"text_input": b"the", "max_tokens": 4}
SETTINGS = settings(max_input_len=20, vocab_size=512, bos_token_id=260)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    directory = tmp_path_factory.mktemp("engine")
    small_tokenizer.write(directory)
    return PromptTokenizer(directory, SETTINGS)


def tensors(values: dict[str, object]) -> dict[str, np.ndarray[Any, Any]]:
    """Return values as Triton gives them: with a batch dimension of 1."""
    return {
        name: np.array([value if isinstance(value, list) else [value]], dtype=TYPES[name])
        for name, value in values.items()
    }


def parse(tokenizer: PromptTokenizer, **values: object) -> TextRequest:
    inputs = Inputs(tensors({**BASE, **values}))
    return text_request.parse(inputs, tokenizer, SETTINGS, UNSUPPORTED_INPUTS)


def parse_ids(tokenizer: PromptTokenizer, **values: object) -> TextRequest:
    inputs = Inputs(tensors({"input_ids": [1, 2, 3], "max_tokens": 4, **values}))
    return text_request.parse(inputs, tokenizer, SETTINGS, UNSUPPORTED_INPUTS)


def options(tokenizer: PromptTokenizer, **values: object) -> AnswerOptions:
    return parse(tokenizer, **values).options


def test_text_is_tokenized_and_ids_are_taken_as_they_are(tokenizer: PromptTokenizer) -> None:
    assert parse(tokenizer).generate.input_ids == tokenizer.encode("the")
    assert parse_ids(tokenizer).generate.input_ids == (1, 2, 3)


def test_a_prompt_of_ids_that_is_too_long_is_refused_before_it_becomes_objects(tokenizer: PromptTokenizer) -> None:
    class Unreadable(np.ndarray[Any, Any]):
        def tolist(self) -> list[int]:
            raise AssertionError

    prompt = np.zeros((1, 10_000), np.int32).view(Unreadable)
    inputs = Inputs({**tensors({"max_tokens": 4}), "input_ids": prompt})
    with pytest.raises(InvalidRequestError, match=r"input_ids: 10000 tokens are more than max_input_len \(20\)"):
        text_request.parse(inputs, tokenizer, SETTINGS, UNSUPPORTED_INPUTS)


def test_messages_about_the_prompt_name_the_input_it_came_in(tokenizer: PromptTokenizer) -> None:
    assert parse(tokenizer).generate.prompt_field == "text_input"
    assert parse_ids(tokenizer).generate.prompt_field == "input_ids"


@pytest.mark.parametrize(
    ("values", "temperature", "top_k", "top_p"),
    [
        ({}, None, None, None),
        ({"temperature": 0.0}, None, None, None),
        ({"temperature": 0.0, "top_k": 50, "top_p": 0.5}, None, None, None),
        ({"temperature": 1e-45}, None, None, None),
        ({"temperature": 9.9e-6, "top_p": 0.5}, None, None, None),
        ({"temperature": 2**-16}, 2**-16, None, None),
        ({"temperature": 0.5}, 0.5, None, None),
        ({"top_k": 1, "temperature": 0.5}, None, None, None),
        ({"top_k": 1, "top_p": 0.0}, None, None, None),
        ({"top_k": 0, "top_p": 0.0}, None, None, None),
        ({"top_k": 40}, 1.0, 40, None),
        ({"top_k": 40, "top_p": 0.0}, 1.0, 40, None),
        ({"top_p": 0.5}, 1.0, None, 0.5),
        ({"top_p": 1.0, "temperature": 2.0}, 2.0, None, None),
        ({"top_k": 5000, "temperature": 2.0}, 2.0, None, None),
    ],
)
def test_randomness(
    tokenizer: PromptTokenizer,
    values: dict[str, object],
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
) -> None:
    sampling = parse(tokenizer, **values).generate.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (temperature, top_k, top_p)


def test_counts_and_penalties_are_passed_on(tokenizer: PromptTokenizer) -> None:
    sampling = parse(
        tokenizer,
        min_tokens=2,
        seed=2**63,
        repetition_penalty=1.5,
        num_return_sequences=2,
        return_log_probs=True,
    ).generate.sampling
    assert (sampling.max_tokens, sampling.min_tokens, sampling.seed) == (4, 2, 2**63)
    assert (sampling.repetition_penalty, sampling.num_sequences, sampling.log_probs) == (1.5, 2, True)


def test_an_engine_that_has_penalties_gets_them(tokenizer: PromptTokenizer) -> None:
    inputs = Inputs(tensors({**BASE, "presence_penalty": -0.5, "frequency_penalty": 0.25}))
    sampling = text_request.parse(inputs, tokenizer, SETTINGS, unsupported={}).generate.sampling
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (-0.5, 0.25)


def test_penalties_have_the_limits_of_the_openai_api(tokenizer: PromptTokenizer) -> None:
    inputs = Inputs(tensors({**BASE, "presence_penalty": 3.0}))
    with pytest.raises(InvalidRequestError, match="presence_penalty: must be between -2 and 2, found 3"):
        text_request.parse(inputs, tokenizer, SETTINGS, unsupported={})


def test_the_names_of_older_servers_are_understood(tokenizer: PromptTokenizer) -> None:
    sampling = parse(tokenizer, min_length=3, random_seed=9).generate.sampling
    assert (sampling.min_tokens, sampling.seed) == (3, 9)


@pytest.mark.parametrize(("end_id", "expected"), [(None, frozenset([2])), (7, frozenset([7])), (-1, frozenset())])
def test_end_id_replaces_the_models_and_minus_one_means_none(
    tokenizer: PromptTokenizer, end_id: int | None, expected: frozenset[int]
) -> None:
    values = {} if end_id is None else {"end_id": end_id}
    assert parse(tokenizer, **values).generate.sampling.stop_token_ids == expected


def test_text_clients_get_text_and_id_clients_get_ids(tokenizer: PromptTokenizer) -> None:
    text, ids = options(tokenizer), parse_ids(tokenizer).options
    assert (text.text, text.output_ids) == (True, False)
    assert (ids.text, ids.output_ids) == (False, True)


def test_what_is_returned_can_be_chosen(tokenizer: PromptTokenizer) -> None:
    chosen = parse_ids(tokenizer, return_text=True, return_output_ids=False).options
    assert (chosen.text, chosen.output_ids) == (True, False)


def test_the_prompt_is_repeated_unless_excluded_or_streamed(tokenizer: PromptTokenizer) -> None:
    assert options(tokenizer).prompt_text == "the"
    assert options(tokenizer, exclude_input_in_output=True).prompt_text == ""
    assert options(tokenizer, stream=True, exclude_input_in_output=False).prompt_text == ""
    assert parse_ids(tokenizer).options.prompt_ids == (1, 2, 3)
    assert parse_ids(tokenizer, return_text=True).options.prompt_text == tokenizer.token_bytes.decode((1, 2, 3))


def test_stop_words_and_their_protection_by_min_tokens(tokenizer: PromptTokenizer) -> None:
    chosen = options(tokenizer, stop_words=[b"a", b"", "é".encode()], min_tokens=2)
    assert chosen.stop_words == ("a", "é")
    assert chosen.min_tokens == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: must lie between 1 and 2147483647, found 0"),
        ({"max_tokens": [1, 2]}, "max_tokens: must hold exactly 1 value, found 2"),
        ({"temperature": -0.5}, "temperature: must be between 0 and 100, found -0.5"),
        ({"temperature": float("nan")}, "temperature: must be between 0 and 100, found nan"),
        ({"top_k": -1}, "top_k: must lie between 0 and"),
        ({"top_p": 1.5}, "top_p: must be between 0 and 1, found 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: must be greater than 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty: must be at least 0, found inf"),
        ({"min_tokens": 5}, "min_tokens: must lie between 0 and 4, found 5"),
        ({"num_return_sequences": 3}, "num_return_sequences: must lie between 1 and 2, found 3"),
        ({"beam_width": 2}, "beam_width: this engine has no beam search; the only width is 1"),
        ({"end_id": 512}, "end_id: must lie between -1 and 511, found 512"),
        ({"text_input": b"\xff"}, "text_input: is not valid UTF-8 at byte 0"),
        ({"text_input": b"x" * 1000}, "text_input: 1000 bytes cannot be max_input_len (20) tokens or fewer"),
        ({"stop_words": [b"\xff"]}, "stop_words: is not valid UTF-8"),
        ({"stop_words": [b"a"] * 65}, "stop_words: at most 64 are allowed, found 65"),
        ({"stop_words": [b"a" * 1025]}, "stop_words: each may have at most 1024 bytes, found one of 1025"),
        ({"input_ids": [1]}, "input_ids: must not be given together with text_input"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_limit(
    tokenizer: PromptTokenizer, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match="^" + re.escape(message)):
        parse(tokenizer, **values)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"max_tokens": 1}, "text_input: is missing"), ({"text_input": b"a"}, "max_tokens: is missing")],
)
def test_a_missing_input_is_named(tokenizer: PromptTokenizer, given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        text_request.parse(Inputs(tensors(given)), tokenizer, SETTINGS, {})


@pytest.mark.parametrize("name", sorted(UNSUPPORTED_INPUTS))
def test_what_the_engine_cannot_honour_is_refused_by_name(tokenizer: PromptTokenizer, name: str) -> None:
    something: object = b"x" if TYPES[name] is np.object_ else 1
    with pytest.raises(InvalidRequestError, match=f"^{name}: "):
        parse(tokenizer, **{name: something})


@pytest.mark.parametrize(
    ("name", "nothing"),
    [
        ("bad_words", b""),
        ("bad_words", []),
        ("return_context_logits", False),
        ("guided_decoding_guide", b""),
        ("presence_penalty", 0.0),
        ("beam_width", 1),
    ],
)
def test_asking_for_nothing_is_not_refused(tokenizer: PromptTokenizer, name: str, nothing: object) -> None:
    parse(tokenizer, **{name: nothing})


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_declared_input_is_read_or_refused(tokenizer: PromptTokenizer, name: str) -> None:
    """An input that is declared and then ignored would be a silent lie."""
    ignored_by_definition = {"length_penalty"}  # it acts on beam search only, which is refused
    seen: set[str] = set()

    class Spy(dict[str, Any]):
        def get(self, key: str, default: object = None) -> Any:
            seen.add(key)
            return super().get(key, default)

        def __contains__(self, key: object) -> bool:
            seen.add(str(key))
            return super().__contains__(key)

    text_request.parse(Inputs(Spy(tensors(BASE))), tokenizer, SETTINGS, UNSUPPORTED_INPUTS)
    assert name in seen | ignored_by_definition


def test_a_begin_token_of_the_chat_template_is_not_doubled(tmp_path: Path) -> None:
    small_tokenizer.write(tmp_path, adds_begin=True)
    tokenizer = PromptTokenizer(tmp_path, SETTINGS)
    assert tokenizer.encode("<|begin|>a") == tokenizer.encode("a")
    assert tokenizer.encode("a")[0] == 260
