from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench.load import exchange
from scalellm_trt.bench.load.client_process import Client
from scalellm_trt.bench.load.job_source import JobSource, id_of_turn
from scalellm_trt.bench.targets.raw import Answer, Piece, Raw
from scalellm_trt.bench.tokens import ServedTokenizer
from scalellm_trt.bench.workloads import choice
from scalellm_trt.errors import RecipeError
from tests.fakes import small_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.bench.question import Question
    from scalellm_trt.bench.workload import Workload


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ServedTokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer.byte_level().save(str(directory / "tokenizer.json"))
    return ServedTokenizer(directory)


def make(text: str, tokenizer: ServedTokenizer, *, isl: str = "100", osl: str = "8") -> Workload:
    return choice.make(choice.parse(text), tokenizer, isl=isl, osl=osl, seed=1)


def count(tokenizer: ServedTokenizer, messages: tuple[tuple[str, str], ...]) -> int:
    return len(tokenizer.encode(tokenizer.render(messages)))


def test_a_long_chat_and_its_answer_have_the_total_together(tokenizer: ServedTokenizer) -> None:
    asked = make("long-chat:total=1500;osl=uniform:min=20,max=90", tokenizer)
    shapes = [asked.shape(number) for number in range(50)]
    assert {shape.isl + shape.osl for shape in shapes} == {1500}
    assert len({shape.osl for shape in shapes}) > 20
    (turn,) = asked.conversation(3, 0).turns
    assert count(tokenizer, turn.messages) + turn.max_tokens == 1500
    assert "This is what you know:" in turn.messages[0][1]
    with pytest.raises(RecipeError, match="leave no prompt of 64"):
        make("long-chat:total=64;osl=64", tokenizer)


def test_prompts_with_a_shared_prefix_begin_alike_within_a_cell_and_not_between_cells(
    tokenizer: ServedTokenizer,
) -> None:
    asked = make("shared-prefix:prefixes=2;prefix=200", tokenizer, isl="50")
    prompts = [asked.conversation(number, 0).turns[0].messages for number in range(20)]
    assert len({messages[0] for messages in prompts}) == 2
    assert len({messages[1] for messages in prompts}) == 20
    assert {count(tokenizer, messages) for messages in prompts} == {250}
    others = {asked.conversation(number, 1).turns[0].messages[0] for number in range(20)}
    assert others.isdisjoint({messages[0] for messages in prompts})


def test_a_turn_follows_the_end_of_the_one_before_and_carries_its_answer(tokenizer: ServedTokenizer) -> None:
    asked = make("conversations:turns=3;follow=10", tokenizer, isl="40", osl="4")
    said: list[exchange.Asked] = []
    questions: list[tuple[Question, str]] = []

    class Parrot:
        async def prepare(self, num_streams: int) -> None:
            return

        async def ask(self, question: Question, request_id: str, timeout_s: float) -> Raw:
            questions.append((question, request_id))
            return Raw(sent_s=1.0, end_s=2.0, pieces=[(1.5, f"answer {len(questions)}".encode())])

        def give_up(self) -> None:
            return

        async def close(self) -> None:
            return

    def read(raw: Raw) -> Answer:
        return Answer(pieces=[Piece(at_s=at_s, text=text.decode()) for at_s, text in raw.pieces])

    async def have() -> None:
        client = Client(Parrot(), read, lambda: tokenizer, lambda each: said.append(each))  # type: ignore[arg-type]
        begin = exchange.Begin(concurrency=1, timeout_s=1)
        client.prepare(begin)
        client.add(JobSource(asked, tokenizer, cell=0, prefix="p").job(0, is_warmup=False))
        client.finish(drops_waiting=False)
        await client.run(begin)

    asyncio.run(have())
    assert [each.turn for each in said] == [0, 1, 2]
    assert [each.is_last_turn for each in said] == [False, False, True]
    assert [role for role, _ in said[2].messages] == ["user", "assistant", "user", "assistant", "user"]
    assert said[2].messages[1] == ("assistant", "answer 1")
    last, _ = questions[2]
    assert last.text == tokenizer.render(last.messages)
    assert last.ids == tokenizer.encode(last.text)
    ids = [request_id for _, request_id in questions]
    assert len(set(ids)) == 3
    assert ids[1] == id_of_turn(ids[0], 1)


def test_a_users_lines_are_asked_in_their_order_and_again_from_the_beginning(
    tokenizer: ServedTokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "prompts.jsonl"
    system = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who?"}]
    path.write_text(f'{{"prompt": "What?"}}\n\n{json.dumps({"messages": system, "max_tokens": 5})}\n')
    asked = make(f"file:{path}", tokenizer)
    turns = [asked.conversation(number, 0).turns[0] for number in range(3)]
    assert [turn.messages[-1][1] for turn in turns] == ["What?", "Who?", "What?"]
    assert turns[1].messages[0] == ("system", "Be short.")
    assert [turn.max_tokens for turn in turns] == [8, 5, 8]


def test_a_conversation_of_share_gpt_has_its_turns_and_the_lengths_of_its_answers(
    tokenizer: ServedTokenizer, tmp_path: Path
) -> None:
    said = [("system", "s"), ("human", "one"), ("gpt", "abcde"), ("human", "two"), ("gpt", "abc"), ("human", "left")]
    path = tmp_path / "chats.json"
    path.write_text(json.dumps([{"id": "1", "conversations": [{"from": a, "value": b} for a, b in said]}]))
    turns = make(f"file:{path}", tokenizer).conversation(0, 0).turns
    assert [(turn.messages, turn.max_tokens) for turn in turns] == [
        ((("system", "s"), ("user", "one")), 5),
        ((("user", "two"),), 3),
    ]
    assert len(make(f"file:{path}?turns=first", tokenizer).conversation(0, 0).turns) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\nnonsense\n', ":2: not JSON"),
        ('{"promt": "a"}\n', ":1: must be an object with either prompt or messages"),
        ('{"prompt": "a", "max_token": 3}\n', ":1: max_token: no such key; allowed: prompt, messages, max_tokens"),
        ('{"prompt": "a", "max_tokens": 0}\n', ":1: max_tokens: must be a whole number of 1 or more, found 0"),
        ('{"messages": [{"role": "user"}]}\n', ":1: messages[0]: must have role and content"),
        ('{"prompt": 3}\n', ":1: prompt: must be text"),
        ('[{"conversations": [{"from": "bot", "value": "x"}]}]', "[0].conversations[0]: must have from (human, user"),
        ('[{"conversation": []}]', "[0].conversations: must be a list"),
        ("[\n{]", ":2: not JSON"),
        ("", "holds no prompt"),
    ],
)
def test_a_wrong_file_is_refused_by_line_and_key(
    tokenizer: ServedTokenizer, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "wrong"
    path.write_text(content)
    with pytest.raises(RecipeError) as caught:
        make(f"file:{path}", tokenizer)
    assert f"{path}" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("long-chat:length=3", "long-chat has no setting 'length'; it takes total, osl, requests"),
        ("shared-prefix:prefixes=none", "prefixes=none: must be a whole number"),
        ("file:x?turns=some", "turns=some: must be all or first"),
    ],
)
def test_a_wrong_setting_is_refused(tokenizer: ServedTokenizer, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make(text, tokenizer)
