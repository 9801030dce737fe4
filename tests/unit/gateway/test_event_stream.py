"""An answer on its way out, message by message, to clients of every speed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from scalellm_trt.gateway import jobs, served
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.event_stream import EventStream
from scalellm_trt.gateway.metrics import Metrics
from scalellm_trt.gateway.options import GatewayOptions
from scalellm_trt.gateway.replies import CompletionDialect
from scalellm_trt.gateway.request_log import new_record
from scalellm_trt.gateway.running import Running
from scalellm_trt.gateway.schemas import CompletionRequest
from scalellm_trt.gateway.send_now import try_now
from tests.fakes.gateways import MODEL, write_repository
from tests.fakes.token_server import _message as message
from tests.unit.gateway.test_http2 import in_loop

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.gateway.jobs import Job
    from scalellm_trt.gateway.upstream import Listener


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    root: Path = tmp_path_factory.mktemp("repository")
    (model,) = served.load(write_repository(root)).values()
    request = CompletionRequest.model_validate({"model": MODEL, "prompt": "abc", "stream": True})
    return jobs.of_completion(request, model, GatewayOptions(), "r")


class Server:
    """Servers of which one call is told what to bring."""

    server_url = None

    def __init__(self) -> None:
        self.events: list[str] = []
        self.listener: Listener | None = None
        self.is_paused = False
        self.express: Any = None
        self._held: list[list[Any]] = []

    async def start(self, work: Any, listener: Listener, metadata: Any = ()) -> Server:
        self.listener = listener
        return self

    def bring(self, *messages: Any) -> None:
        if self.is_paused:
            self._held.append(list(messages))
        else:
            assert self.listener is not None
            self.listener.on_messages(list(messages))

    def cancel(self) -> None:
        self.events.append("cancel")

    def pause(self) -> None:
        self.events.append("pause")
        self.is_paused = True

    def hurry(self, express: Any) -> None:
        self.express = express

    def resume(self) -> None:
        self.events.append("resume")
        self.is_paused = False
        held, self._held = self._held, []
        if held:
            self.bring(*[message for messages in held for message in messages])


class Client:
    """Takes what ASGI sends; `is_slow` until told otherwise."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.is_over = False
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def send(self, message: Any) -> None:
        await self.may_go_on.wait()
        if message["type"] == "http.response.body":
            self.body.append(message["body"])
            self.is_over = not message["more_body"]

    def texts(self) -> list[list[str]]:
        """Return the texts of the events of each write."""
        return [
            [_text(event) for event in body.decode().split("\n\n") if event and event != "data: [DONE]"]
            for body in self.body
        ]


def _text(event: str) -> str:
    value = orjson.loads(event.removeprefix("data: "))
    text: str = value["choices"][0]["text"] if "choices" in value else value["error"]["message"]
    return text


def _token(letter: str, reason: str = "") -> Any:
    return message(0, [64 + ord(letter) - ord("a")], reason, {}, is_final=bool(reason))


def _begin(job: Job) -> tuple[Server, Client, asyncio.Task[None]]:
    server, client = Server(), Client()
    running = Running(job, Metrics(), new_record("POST", "/", {}))
    events = EventStream(client.send, running, CompletionDialect(job), include_usage=False)
    return server, client, asyncio.ensure_future(events.run(server))  # type: ignore[arg-type]  # it can do one call


@in_loop
async def test_a_read_is_a_write(job: Job) -> None:
    server, client, run = _begin(job)
    await asyncio.sleep(0)
    server.bring(_token("a"))
    assert client.texts() == [["a"]]
    server.bring(_token("b"), _token("c"))
    assert client.texts() == [["a"], ["bc"]]
    server.bring(_token("d", "length"))
    await run
    assert client.texts() == [["a"], ["bc"], ["d"]]
    assert client.body[-1].endswith(b"data: [DONE]\n\n")
    assert client.is_over
    assert server.events == []


@in_loop
async def test_plain_tokens_read_as_parsed_ones_do(job: Job) -> None:
    server, client, run = _begin(job)
    await asyncio.sleep(0)
    assert server.express.last_token() is None
    server.bring(_token("a"))
    assert server.express.last_token() == 64
    server.bring(_token("b"))
    server.express.on_tokens([65])
    assert client.body[2] == client.body[1]
    server.express.on_tokens([66, 67])
    server.bring(_token("e", "length"))
    assert server.express.last_token() is None
    await run
    assert client.texts() == [["a"], ["b"], ["b"], ["cd"], ["e"]]
    server.express.on_tokens([66])
    assert len(client.body) == 5


@in_loop
async def test_between_the_first_and_the_last_events_go_past_asgi_where_that_can_be(job: Job) -> None:
    written: list[bytes] = []
    can_write = True

    def write(body: bytes) -> bool:
        if can_write:
            written.append(body)
        return can_write

    server, client = Server(), Client()
    running = Running(job, Metrics(), new_record("POST", "/", {}))
    events = EventStream(client.send, running, CompletionDialect(job), include_usage=False, write=write)
    run = asyncio.ensure_future(events.run(server))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    for letter in "ab":
        server.bring(_token(letter))
    can_write = False
    server.bring(_token("c"))
    can_write = True
    server.bring(_token("d", "length"))
    await run
    assert client.texts() == [["a"], ["c"], ["d"]]
    assert [_text(body.decode().strip()) for body in written] == ["b"]


@pytest.mark.parametrize("changes", [{"stop": ["x"]}, {"n": 2, "seed": 1}, {"logprobs": 0}])
@in_loop
async def test_an_answer_that_needs_more_than_text_is_not_hurried(job: Job, changes: dict[str, Any]) -> None:
    fields = {"model": MODEL, "prompt": "abc", "stream": True} | changes
    other = jobs.of_completion(CompletionRequest.model_validate(fields), job.model, GatewayOptions(), "r")
    server, _, run = _begin(other)
    await asyncio.sleep(0)
    assert server.listener is not None
    assert server.express is None
    run.cancel()


@in_loop
async def test_a_slow_client_stops_the_server_and_misses_nothing(job: Job) -> None:
    server, client, run = _begin(job)
    await asyncio.sleep(0)
    client.may_go_on.clear()
    server.bring(_token("a"))
    assert server.events == ["pause"]
    server.bring(_token("b"))
    server.bring(_token("c"), _token("d", "length"))
    await asyncio.sleep(0)
    assert client.texts() == []
    client.may_go_on.set()
    await asyncio.wait_for(run, 5)
    assert client.texts() == [["a"], ["bcd"]]
    assert client.is_over
    assert server.events == ["pause", "resume"]


@in_loop
async def test_the_last_write_is_waited_for(job: Job) -> None:
    server, client, run = _begin(job)
    await asyncio.sleep(0)
    client.may_go_on.clear()
    server.bring(_token("a"), _token("b", "length"))
    await asyncio.sleep(0)
    assert not run.done()
    client.may_go_on.set()
    await asyncio.wait_for(run, 5)
    assert (client.texts(), client.is_over) == ([["ab"]], True)
    assert "cancel" not in server.events


@in_loop
async def test_a_client_that_leaves_while_it_is_waited_for_cancels(job: Job) -> None:
    server, client, run = _begin(job)
    await asyncio.sleep(0)
    client.may_go_on.clear()
    server.bring(_token("a"))
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert server.events == ["pause", "cancel"]


@in_loop
async def test_an_error_has_its_status_before_the_first_text_and_is_an_event_after(job: Job) -> None:
    server, client, run = _begin(job)
    await asyncio.sleep(0)
    assert server.listener is not None
    server.listener.on_end(ApiError(503, "gone"))
    with pytest.raises(ApiError, match="gone"):
        await run
    assert client.body == []
    server, client, run = _begin(job)
    await asyncio.sleep(0)
    server.bring(_token("a"))
    assert server.listener is not None
    server.listener.on_end(None)
    await run
    assert client.texts() == [["a"], ["the model's server ended the answer before it was complete"]]
    assert client.is_over


@in_loop
async def test_a_bug_in_a_callback_ends_its_own_request(job: Job) -> None:
    server, _, run = _begin(job)
    await asyncio.sleep(0)
    server.bring(message(7, [5], "", {"num_return_sequences": [8]}, is_final=False))
    with pytest.raises(IndexError):
        await run
    assert server.events == ["cancel"]


@in_loop
async def test_the_rest_of_a_coroutine_goes_on_in_a_task() -> None:
    steps: list[str] = []

    async def work() -> None:
        for step in "abc":
            await asyncio.sleep(0 if step == "a" else 0.001)
            steps.append(step)
        raise ValueError("at the end")

    async def nothing() -> None:
        steps.append("at once")

    assert try_now(nothing()) is None
    rest = try_now(work())
    assert rest is not None
    with pytest.raises(ValueError, match="at the end"):
        await rest
    assert steps == ["at once", "a", "b", "c"]
    with pytest.raises(ValueError, match="at the end"):
        await _through_task(work())
    stuck = try_now(asyncio.Event().wait())  # type: ignore[arg-type]  # its result is of no interest
    assert stuck is not None
    task = asyncio.ensure_future(stuck)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _through_task(coroutine: Any) -> None:
    rest = try_now(coroutine)
    assert rest is not None
    await asyncio.ensure_future(rest)
