"""A request finds another server when one breaks: anew before the first token, from where it was after it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.grpc import service_pb2

from scalellm_trt.gateway.errors import ApiError, from_model
from scalellm_trt.gateway.fleet.attempts import BROKEN, Attempts
from scalellm_trt.gateway.fleet.health import Health
from scalellm_trt.gateway.fleet.member import Member
from scalellm_trt.gateway.options import ServerOptions

if TYPE_CHECKING:
    from collections.abc import Collection

GONE = ApiError(503, "gone", code=BROKEN)


class Server:
    """An upstream that keeps the listeners of its calls."""

    def __init__(self, refusal: ApiError | None = None) -> None:
        self.refusal = refusal
        self.requests: list[object] = []
        self.listeners: list[Any] = []
        self.events: list[str] = []
        self.express: Any = None

    async def start(self, request: object, listener: Any, metadata: object = ()) -> Server:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append(request)
        self.listeners.append(listener)
        return self

    def say(self, *texts: str, error: str = "") -> None:
        messages = [service_pb2.ModelStreamInferResponse() for _ in texts]
        for message, text in zip(messages, texts, strict=True):
            message.infer_response.id = text
        if error:
            messages.append(service_pb2.ModelStreamInferResponse(error_message=error))
        self.listeners[-1].on_messages(messages)

    def end(self, error: ApiError | None = None) -> None:
        self.listeners[-1].on_end(error)

    def cancel(self) -> None:
        self.events.append("cancel")

    def pause(self) -> None:
        self.events.append("pause")

    def hurry(self, express: Any) -> None:
        self.express = express

    def resume(self) -> None:
        self.events.append("resume")


class Talk:
    """The work, its listener, and the fleet that it is done in."""

    model, input_ids, num_tokens = "m", (1, 2), 10
    max_attempts, wait_s, continues_sampled = 3, 5.0, False
    is_done = False

    def __init__(self, *servers: Server, is_sampled: bool = False, obstacle: str | None = None) -> None:
        self.members = [self._member(index, server) for index, server in enumerate(servers)]
        self.is_sampled, self.obstacle = is_sampled, obstacle
        self.heard: list[str] = []
        self.ends: list[ApiError | None] = []
        self.noted: list[tuple[str, str]] = []
        self.attempts = Attempts(self, self, self, ())

    @staticmethod
    def _member(index: int, server: Any) -> Member:
        return Member(ServerOptions(name=f"s{index}", url=f"h:{index}"), server, Health(3, lambda: 0.0))

    async def pick(self, work: object, refused: Collection[Member], deadline_s: float) -> Member | None:
        free = [member for member in self.members if member.health.is_good and member not in refused]
        return free[0] if free else None

    def note(self, event: str, member: Member) -> None:
        self.noted.append((event, member.name))

    @property
    def has_begun(self) -> bool:
        return bool(self.heard)

    def request(self) -> str:
        return "".join(["prompt:", *self.heard])

    def why_not_continued(self) -> str | None:
        return self.obstacle

    def refusal(self, message: str) -> ApiError:
        return from_model(message)

    def on_messages(self, messages: list[Any]) -> None:
        self.heard += [message.infer_response.id or f"<{message.error_message}>" for message in messages]

    def on_end(self, error: ApiError | None) -> None:
        self.ends.append(error)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_server_that_is_not_there_is_passed_over() -> None:
    async def run() -> None:
        talk = Talk(Server(GONE), other := Server())
        await talk.attempts.begin()
        assert other.requests == ["prompt:"]
        assert [member.num_running for member in talk.members] == [0, 1]
        assert not talk.members[0].health.is_good
        other.say("a", "b")
        other.end()
        assert (talk.heard, talk.ends) == (["a", "b"], [None])
        assert talk.members[1].num_outstanding_tokens == 0

    asyncio.run(run())


def test_an_answer_goes_on_elsewhere_from_where_it_was() -> None:
    async def run() -> None:
        talk = Talk(first := Server(), second := Server(), third := Server())
        await talk.attempts.begin()
        first.say("a", "b")
        first.end(GONE)
        await _settle()
        assert second.requests == ["prompt:ab"]
        second.say("c")
        second.end(GONE)
        await _settle()
        third.say("d")
        third.end()
        assert (talk.heard, talk.ends) == (["a", "b", "c", "d"], [None])
        assert talk.noted == [("continued", "s0"), ("continued", "s1")]
        assert third.requests == ["prompt:abc"]

    asyncio.run(run())


def test_tokens_take_the_short_way_of_the_call_that_counts() -> None:
    class Express:
        def __init__(self) -> None:
            self.token_ids: list[int] = []

        def last_token(self) -> int:
            return 7

        def on_tokens(self, token_ids: Any) -> bool:
            self.token_ids += token_ids
            return 5 not in token_ids

    async def run() -> None:
        talk, express = Talk(first := Server(), second := Server()), Express()
        await talk.attempts.begin()
        talk.attempts.hurry(express)
        first.say("a")
        assert first.express.last_token() == 7
        first.express.on_tokens([1, 2])
        first.end(GONE)
        await _settle()
        assert first.express is None  # what it still says is for the listener, who does not hear it
        assert second.express.on_tokens([3])
        assert not second.express.on_tokens([5])
        assert express.token_ids == [1, 2, 3, 5]

    asyncio.run(run())


def test_what_a_given_up_call_still_says_is_not_heard() -> None:
    async def run() -> None:
        talk = Talk(first := Server(), second := Server())
        await talk.attempts.begin()
        first.say(error="the model is being unloaded")
        await _settle()
        assert talk.noted == [("retried", "s0")]
        assert talk.members[0].health.is_good, "a server that says no is not broken"
        first.say("late")
        first.end()
        second.say("a")
        second.end()
        assert (talk.heard, talk.ends) == (["a"], [None])

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "is_text"),
    [("max_tokens: must be less", True), ("CUDA error: an illegal memory access", True), ("INTERNAL: broken", False)],
)
def test_what_speaks_against_the_request_is_not_passed_round(error: str, is_text: bool) -> None:
    async def run() -> None:
        talk = Talk(first := Server(), second := Server())
        await talk.attempts.begin()
        if is_text:
            first.say("a", error=error)
            first.end()
            assert (talk.heard, talk.ends) == (["a", f"<{error}>"], [None])
        else:
            first.end(failure := ApiError(500, error))
            assert talk.ends == [failure]
        await _settle()
        assert second.requests == []
        assert [member.num_running for member in talk.members] == [0, 0]

    asyncio.run(run())


@pytest.mark.parametrize(("is_sampled", "obstacle"), [(True, None), (False, "it has several answers")])
def test_what_cannot_be_continued_ends_with_the_error(is_sampled: bool, obstacle: str | None) -> None:
    async def run() -> None:
        talk = Talk(first := Server(), second := Server(), is_sampled=is_sampled, obstacle=obstacle)
        await talk.attempts.begin()
        first.end(GONE)
        await _settle()
        assert second.requests == ["prompt:"], "before the first token everything can begin anew"
        second.say("a")
        second.end(GONE)
        await _settle()
        assert talk.ends == [GONE]
        assert talk.noted == [("retried", "s0"), ("lost", "s1")]
        if is_sampled:
            talk = Talk(first := Server(), second := Server(), is_sampled=True)
            talk.continues_sampled = True
            await talk.attempts.begin()
            first.say("a")
            first.end(GONE)
            await _settle()
            assert second.requests == ["prompt:a"]

    asyncio.run(run())


def test_a_server_that_breaks_after_the_last_token_has_lost_nothing() -> None:
    async def run() -> None:
        talk = Talk(first := Server(), second := Server())
        await talk.attempts.begin()
        first.say("a")
        talk.is_done = True
        first.end(GONE)
        await _settle()
        assert (second.requests, talk.noted, talk.ends) == ([], [], [GONE])

    asyncio.run(run())


def test_a_request_that_breaks_servers_does_not_break_all() -> None:
    async def run() -> None:
        servers = [Server() for _ in range(5)]
        talk = Talk(*servers)
        await talk.attempts.begin()
        for server in servers[:3]:
            server.end(GONE)
            await _settle()
        assert talk.ends == [GONE]
        assert [len(server.requests) for server in servers] == [1, 1, 1, 0, 0]

    asyncio.run(run())


def test_cancel_ends_the_call_and_the_search() -> None:
    async def run() -> None:
        talk = Talk(first := Server(), second := Server())
        await talk.attempts.begin()
        talk.attempts.cancel()
        talk.attempts.cancel()
        assert first.events == ["cancel"]
        talk = Talk(first := Server(), second := Server())
        await talk.attempts.begin()
        first.end(GONE)
        talk.attempts.cancel()
        await _settle()
        assert second.requests == []
        assert (talk.ends, [member.num_running for member in talk.members]) == ([], [0, 0])

    asyncio.run(run())


def test_a_pause_holds_for_the_next_server_too() -> None:
    async def run() -> None:
        talk = Talk(first := Server(), second := Server())
        await talk.attempts.begin()
        talk.attempts.pause()
        first.end(GONE)
        await _settle()
        assert second.events == ["pause"]
        talk.attempts.resume()
        assert second.events == ["pause", "resume"]

    asyncio.run(run())


def test_no_server_at_all_is_503() -> None:
    with pytest.raises(ApiError, match="no server of the model is ready") as error:
        asyncio.run(Talk().attempts.begin())
    assert (error.value.status, error.value.headers) == (503, {"retry-after": "1"})
    with pytest.raises(ApiError) as again:
        asyncio.run(Talk().attempts.begin())
    assert again.value is not error.value, "its traceback would grow for ever"
