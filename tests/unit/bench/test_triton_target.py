from __future__ import annotations

import asyncio
import struct
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import uvloop

from scalellm_trt.bench.question import Question
from scalellm_trt.bench.targets import in_process, triton
from scalellm_trt.bench.targets.grpc_client import GrpcClient
from scalellm_trt.bench.targets.raw import Raw
from scalellm_trt.bench.targets.target import Way
from scalellm_trt.runtime.engine_api import Chunk, InvalidRequestError
from scalellm_trt.runtime.settings import ServiceSettings
from tests.fakes import bad_server
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scalellm_trt.bench.targets.raw import Answer
    from scalellm_trt.runtime.engine_api import GenerateRequest

QUESTION = Question(messages=(("user", "ab"),), text="ab", ids=(64, 65, 66), max_tokens=5)
END_ID = 0
LONG_S, SHORT_S = 30.0, 0.3


def text_of(ids: Sequence[int]) -> str:
    return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def one_server() -> Iterator[TokenServer]:
    server = TokenServer("m", END_ID)
    yield server
    server.close()


@pytest.fixture
def server(one_server: TokenServer) -> TokenServer:
    one_server.reset()
    return one_server


def ask(
    url: str, *, model: str = "m", times: int = 1, timeout_s: float = LONG_S, question: Question = QUESTION
) -> list[Answer]:
    async def all_of_them() -> list[Raw]:
        asker = triton.TritonAsker(Way(name="t", kind="triton-tokens", url=url, model=model), GrpcClient(url))
        await asker.prepare(times)
        raws = await asyncio.gather(*(asker.ask(question, f"id-{n}", timeout_s) for n in range(times)))
        await asker.close()
        return raws

    return [triton.reader(text_of)(raw) for raw in uvloop.run(all_of_them())]


def test_a_token_model_is_asked_with_the_prompts_ids_and_each_response_is_a_piece_with_its_time(
    server: TokenServer,
) -> None:
    server.counts_up, server.tokens_per_response = True, 2
    answers = ask(server.url, times=8)
    for answer in answers:
        assert (answer.error, answer.finish_reason) == (None, "length")
        assert [piece.num_tokens for piece in answer.pieces] == [2, 2, 1]
        assert answer.server_osl == 5
        assert answer.text == "67 68 69 70 71"
        assert [piece.at_s for piece in answer.pieces] == sorted(piece.at_s for piece in answer.pieces)
    assert {tuple(request["input_ids"]) for request in server.requests} == {(64, 65, 66)}
    assert server.requests[0]["min_tokens"] == [5]


def test_a_prompt_longer_than_a_window_arrives_whole(server: TokenServer) -> None:
    long = Question(messages=(), text="", ids=tuple(range(40_000)), max_tokens=2)
    (answer,) = ask(server.url, question=long)
    assert answer.error is None
    assert server.requests[0]["input_ids"] == list(range(40_000))


def test_each_kind_of_refusal_has_its_class(server: TokenServer) -> None:
    (unknown,) = ask(server.url, model="other")
    server.failure = "max_queue_size: the queue is full"
    (busy,) = ask(server.url)
    server.failure = "max_tokens: too many"
    (wrong,) = ask(server.url)
    server.failure = None
    server.status = grpc.StatusCode.UNAUTHENTICATED
    (stranger,) = ask(server.url)
    server.status = grpc.StatusCode.INTERNAL
    (broken,) = ask(server.url)
    found = [each.error for each in (unknown, busy, wrong, stranger, broken)]
    assert found == ["wrong_model", "rate_limited", "bad_request", "unauthorized", "server_error"]


def test_what_came_before_an_engine_died_is_kept(server: TokenServer) -> None:
    server.breaks_after = 2
    (answer,) = ask(server.url)
    assert (answer.error, answer.error_text) == ("server_error", "the engine died")
    assert len(answer.pieces) == 2


def test_a_model_that_hangs_is_left_at_the_timeout_and_its_server_hears_of_it(server: TokenServer) -> None:
    server.step_s, server.is_endless = 0.05, True
    (answer,) = ask(server.url, timeout_s=SHORT_S, question=Question(messages=(), text="", ids=(7,), max_tokens=4000))
    assert answer.error == "timeout"
    assert answer.pieces
    assert server.has_left.wait(LONG_S)


def test_nobody_and_a_server_of_another_protocol_are_told_apart() -> None:
    (nobody,) = ask("127.0.0.1:1")
    with bad_server.running("garbage") as other:
        (garbage,) = ask(other.url.removeprefix("http://"))
    assert nobody.error == "refused"
    assert garbage.error == "garbage"
    assert "speaks HTTP/1" in (garbage.error_text or "")


def test_a_text_models_request_and_answer() -> None:
    from tritonclient.grpc import service_pb2

    way = Way(name="t", kind="triton-text", url="", model="m", forces_length=False, temperature=0.5)
    request = service_pb2.ModelInferRequest.FromString(triton.request(way, QUESTION, "id"))
    names = {tensor.name for tensor in request.inputs}
    assert {"text_input", "max_tokens", "stream", "temperature", "return_num_output_tokens"} <= names
    assert "min_tokens" not in names
    pieces = [(1.0, _text(b"", 1, 9)), (2.0, _text(b"ab", 2, None)), (3.0, _text(b"", 1, None, b"stop"))]
    answer = triton.reader(text_of)(Raw(sent_s=0.0, end_s=3.0, pieces=pieces))
    assert [(piece.at_s, piece.text, piece.num_tokens) for piece in answer.pieces] == [(2.0, "ab", 4)]
    assert (answer.server_isl, answer.server_osl, answer.finish_reason, answer.text) == (9, 4, "stop", "ab")
    damaged = triton.reader(text_of)(Raw(sent_s=0.0, pieces=[(1.0, b"\xff\xff\xff")]))
    assert damaged.error == "garbage"


def _text(text: bytes, num_tokens: int, num_input_tokens: int | None, reason: bytes = b"") -> bytes:
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelStreamInferResponse()
    values = {
        "text_output": struct.pack("<I", len(text)) + text,
        "num_output_tokens": struct.pack("<i", num_tokens),
        "finish_reason": struct.pack("<I", len(reason)) + reason,
    }
    if num_input_tokens is not None:
        values["num_input_tokens"] = struct.pack("<i", num_input_tokens)
    for name, raw in values.items():
        message.infer_response.outputs.add(name=name)
        message.infer_response.raw_output_contents.append(raw)
    content: bytes = message.SerializeToString()
    return content


SETTINGS = ServiceSettings(
    engine="openvino", engine_directory="engine", vocab_size=256, eos_token_ids=(END_ID,), max_batch_size=4,
    max_input_len=100, max_seq_len=200, max_num_tokens=64, kv_cache_tokens=320,
)  # fmt: skip


class _Engine:
    """Answers from a thread of its own, two chunks; or does as `behaviour` says."""

    def __init__(self, behaviour: str = "good") -> None:
        self.behaviour = behaviour
        self.requests: list[GenerateRequest] = []
        self.was_cancelled = False

    def submit(self, request: GenerateRequest, sink: Callable[[Chunk], bool]) -> _Engine:
        self.requests.append(request)
        if self.behaviour == "refuses":
            raise InvalidRequestError("max_tokens: too many")
        threading.Thread(target=self._answer, args=(sink,)).start()
        return self

    def _answer(self, sink: Callable[[Chunk], bool]) -> None:
        sink(Chunk(sequence_index=0, token_ids=(1, 2)))
        if self.behaviour == "fails":
            sink(Chunk(sequence_index=0, token_ids=(), finish_reason="error", error="no memory"))
        elif self.behaviour == "good":
            sink(Chunk(sequence_index=0, token_ids=(3,), finish_reason="length"))

    def cancel(self) -> None:
        self.was_cancelled = True

    def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("behaviour", "error", "tokens"),
    [("good", None, [2, 1]), ("fails", "server_error", [2]), ("refuses", "bad_request", []), ("hangs", "timeout", [2])],
)
def test_an_engine_in_process_is_asked_without_a_server(behaviour: str, error: str | None, tokens: list[int]) -> None:
    engine: Any = _Engine(behaviour)
    asker = in_process.EngineAsker(Way(name="e", kind="in-process"), engine, SETTINGS)
    raw = uvloop.run(asker.ask(QUESTION, "id", SHORT_S if behaviour == "hangs" else LONG_S))
    answer = in_process.reader(text_of)(raw)
    assert answer.error == error
    assert [piece.num_tokens for piece in answer.pieces] == tokens
    assert engine.was_cancelled == (behaviour == "hangs")
    (request,) = engine.requests
    assert (request.input_ids, request.sampling.min_tokens, request.sampling.max_tokens) == ((64, 65, 66), 5, 5)
    assert request.sampling.stop_token_ids == {END_ID}
