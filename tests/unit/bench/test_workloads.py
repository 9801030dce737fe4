from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench import workload
from scalellm_trt.bench.tokens import ServedTokenizer, split_by_ends
from scalellm_trt.bench.workloads import choice, lengths
from scalellm_trt.errors import RecipeError
from tests.fakes import small_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.bench.workload import Workload

TEMPLATE = "{% for m in messages %}<|begin|>{{ m.role }}:{{ m.content }}<|end|>{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ServedTokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer.byte_level().save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return ServedTokenizer(directory)


def make(text: str, tokenizer: ServedTokenizer, *, isl: str = "100", osl: str = "8", seed: int = 1) -> Workload:
    return choice.make(choice.parse(text), tokenizer, isl=isl, osl=osl, seed=seed)


@pytest.mark.parametrize("isl", [20, 21, 300, 1001])
def test_a_prompt_has_exactly_the_tokens_that_it_should_with_the_template_around_it(
    tokenizer: ServedTokenizer, isl: int
) -> None:
    asked = make("lengths", tokenizer, isl=str(isl))
    for number in range(3):
        (turn,) = asked.conversation(number, 0).turns
        assert len(tokenizer.encode(tokenizer.render(turn.messages))) == isl
        assert turn.max_tokens == 8


def test_a_prompt_shorter_than_the_template_is_refused(tokenizer: ServedTokenizer) -> None:
    with pytest.raises(RecipeError, match="a prompt of 3 tokens is too short"):
        make("lengths", tokenizer, isl="3").conversation(0, 0)


def test_the_same_seed_asks_the_same_and_another_cell_asks_other_texts_of_the_same_lengths(
    tokenizer: ServedTokenizer,
) -> None:
    isl = "lognormal:median=60,sigma=0.5,min=30,max=200"
    one, again = (make("lengths", tokenizer, isl=isl) for _ in range(2))
    other_seed = make("lengths", tokenizer, isl=isl, seed=2)
    assert one.conversation(7, 3) == again.conversation(7, 3)
    assert one.conversation(7, 3) != one.conversation(7, 4)
    assert one.shape(7) == again.shape(7)
    assert [one.shape(i) for i in range(5)] != [other_seed.shape(i) for i in range(5)]


def test_equal_digests_are_equal_work(tokenizer: ServedTokenizer) -> None:
    noted = workload.note(make("lengths", tokenizer))
    assert noted == workload.note(make("lengths", tokenizer))
    assert (noted.isl_p50, noted.isl_max, noted.osl_p50) == (100, 100, 8)
    others = [
        make("lengths", tokenizer, seed=2),
        make("lengths", tokenizer, osl="9"),
        make("lengths", tokenizer, isl="99"),
    ]
    assert len({noted.digest, *(workload.note(each).digest for each in others)}) == 4


@pytest.mark.parametrize(
    "text",
    ["uniform:min=10,max=20", "normal:mean=15,std=4,min=10,max=20", "lognormal:median=15,sigma=0.4,min=10,max=20"],
)
def test_lengths_keep_to_their_bounds_and_are_spread_between_them(text: str) -> None:
    drawing, parsed = random.Random(1), lengths.parse(text, "--isl")
    drawn = [lengths.draw(parsed, drawing) for _ in range(500)]
    assert min(drawn) >= 10
    assert max(drawn) <= 20
    assert len(set(drawn)) > 8
    assert 14 <= sorted(drawn)[250] <= 16
    assert parsed.label == text


@pytest.mark.parametrize(
    "text",
    ["", "0", "-3", "x", "uniform:min=1", "uniform:min=5,max=2", "normal:mean=a", "normal:mean=9,std=1,min=1,max=2"],
)
def test_what_is_no_length_is_refused_by_the_option_that_it_stands_behind(text: str) -> None:
    with pytest.raises(RecipeError, match="--osl: "):
        lengths.parse(text, "--osl")


def test_tokens_belong_to_the_piece_in_which_they_end(tokenizer: ServedTokenizer) -> None:
    # One token ends at 1, 3, 3 (a character of two tokens) and 6 of pieces that end at 2, 3 and 6.
    assert split_by_ends([1, 3, 3, 6], [2, 1, 3]) == (1, 2, 1)
    pieces = ["a", " t", "he", "", " 🙂"]
    counts = tokenizer.chunk_counts(pieces)
    assert sum(counts) == len(tokenizer.plain("".join(pieces)))
    assert counts[:4] == (1, 0, 1, 0)


def test_a_workload_may_have_its_own_concurrencies() -> None:
    assert choice.parse("lengths@1,2").concurrencies == (1, 2)
    assert choice.parse("lengths").concurrencies is None
    with pytest.raises(RecipeError, match="'1,x' is no list of numbers"):
        choice.parse("lengths@1,x")
    with pytest.raises(RecipeError, match="'nothing' is no workload"):
        choice.parse("nothing")
