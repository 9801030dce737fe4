"""Real gRPC servers behind wires that are cut or go dead: answers go on without a letter lost or said twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from scalellm_trt.gateway import jobs, served
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.event_stream import EventStream
from scalellm_trt.gateway.fleet.fleet import Fleet
from scalellm_trt.gateway.metrics import Metrics
from scalellm_trt.gateway.options import GatewayOptions, RoutingOptions, ServerOptions
from scalellm_trt.gateway.replies import CompletionDialect
from scalellm_trt.gateway.request_log import new_record
from scalellm_trt.gateway.running import Running
from scalellm_trt.gateway.schemas import CompletionRequest
from tests.fakes.gateways import END_ID, MODEL, write_repository
from tests.fakes.token_server import TokenServer
from tests.fakes.wires import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from scalellm_trt.gateway.options import UpstreamKind
    from scalellm_trt.gateway.served import GatewayModel

pytestmark = pytest.mark.integration  # they start processes or servers, and wait
ALPHABET = "bcdefghijklmnopqrstuvwxyza"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GatewayModel:
    root: Path = tmp_path_factory.mktemp("repository")
    (model,) = served.load(write_repository(root)).values()
    return model


@pytest.fixture
def servers() -> Iterator[list[TokenServer]]:
    servers = [TokenServer(MODEL, END_ID) for _ in range(3)]
    for server in servers:
        server.counts_up, server.step_s = True, 0.005
    yield servers
    for server in servers:
        server.close()


@pytest.fixture
def wires(servers: list[TokenServer]) -> Iterator[list[Wire]]:
    wires = [Wire(server.url) for server in servers]
    yield wires
    for wire in wires:
        wire.close()


class Client:
    """One request in the gateway, and what its client has got."""

    def __init__(self, model: GatewayModel, **fields: Any) -> None:
        body = {"model": MODEL, "prompt": "a", "stream": True, "temperature": 0, "max_tokens": 60, **fields}
        self.job = jobs.of_completion(CompletionRequest.model_validate(body), model, GatewayOptions(), "r")
        self.metrics = Metrics()
        self.record = new_record("POST", "/v1/completions", {})
        self.text = ""
        self.error = ""
        self.finish_reason: str | None = None
        self.has_text = asyncio.Event()

    async def run(self, fleet: Fleet) -> None:
        running = Running(self.job, self.metrics, self.record)
        await EventStream(self._take, running, CompletionDialect(self.job), include_usage=False).run(fleet)

    async def _take(self, message: Any) -> None:
        for event in message.get("body", b"").decode().split("\n\n"):
            if event.startswith("data: {"):
                value = orjson.loads(event[6:])
                if "error" in value:
                    self.error = value["error"]["message"]
                else:
                    self.text += value["choices"][0]["text"]
                    self.finish_reason = value["choices"][0]["finish_reason"]
                    self.has_text.set()


@asynccontextmanager
async def _fleet(wires: list[Wire], upstream: UpstreamKind = "http2", **routing: Any) -> AsyncIterator[Fleet]:
    servers = tuple(ServerOptions(name=f"s{index}", url=wire.url) for index, wire in enumerate(wires))
    options = {"probe_interval_s": 0.05, "probe_timeout_s": 5.0, "max_failed_probes": 2, **routing}
    fleet = Fleet(GatewayOptions(servers=servers, upstream=upstream, routing=RoutingOptions(**options)), Metrics())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fleet.close)
        deadline = time.monotonic() + 10
        while any(member.models is None for member in fleet.members):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        yield fleet
        deadline = time.monotonic() + 30  # the last message of a call comes before its end
        while any(member.num_running or member.num_outstanding_tokens for member in fleet.members):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def _all_have_text(clients: list[Client]) -> None:
    await asyncio.wait_for(asyncio.gather(*(client.has_text.wait() for client in clients)), 20)


def _expected(num_tokens: int) -> str:
    return (ALPHABET * 10)[:num_tokens]


@pytest.mark.parametrize("upstream", ["http2", "grpc"])
@pytest.mark.parametrize("harm", ["cut", "hold"])
def test_every_answer_goes_on_when_a_server_breaks(
    model: GatewayModel, wires: list[Wire], harm: str, upstream: UpstreamKind
) -> None:
    async def run() -> None:
        async with _fleet(wires, upstream, probe_timeout_s=0.5 if harm == "hold" else 5.0) as fleet:
            clients = [Client(model, max_tokens=40 + number) for number in range(24)]
            tasks = [asyncio.ensure_future(client.run(fleet)) for client in clients]
            await _all_have_text(clients)
            assert [member.num_running for member in fleet.members] == [8, 8, 8]
            getattr(wires[0], harm)()
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
            assert not fleet.members[0].health.is_good
            for number, client in enumerate(clients):
                assert (client.text, client.error) == (_expected(40 + number), "")
                assert client.finish_reason == "length"
            assert Counter(client.record.num_continued for client in clients) == {None: 16, 1: 8}
            wires[0].mend()
            deadline = time.monotonic() + 10
            while not fleet.members[0].health.is_good:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    asyncio.run(run())


def test_a_server_whose_streams_stand_still_is_given_up_after_one_question(
    model: GatewayModel, wires: list[Wire]
) -> None:
    async def run() -> None:
        # By its questions alone it would be found after hours.
        limits: dict[str, Any] = {"probe_interval_s": 3600.0, "max_failed_probes": 1000, "silent_after_s": 1.0}
        async with _fleet(wires[:2], **limits) as fleet:
            clients = [Client(model) for _ in range(4)]
            tasks = [asyncio.ensure_future(client.run(fleet)) for client in clients]
            await _all_have_text(clients)
            wires[0].hold()
            await asyncio.wait_for(asyncio.gather(*tasks), 30)
            assert {(client.text, client.error) for client in clients} == {(_expected(60), "")}
            assert Counter(client.record.num_continued for client in clients) == {None: 2, 1: 2}
            wires[0].mend()

    asyncio.run(run())


def test_servers_that_are_left_alone_are_better_than_none(model: GatewayModel, wires: list[Wire]) -> None:
    async def run() -> None:
        async with _fleet(wires, probe_timeout_s=0.5) as fleet:
            for member in fleet.members[1:]:
                member.health._ejected_until_s = float("inf")
            clients = [Client(model) for _ in range(4)]
            tasks = [asyncio.ensure_future(client.run(fleet)) for client in clients]
            await _all_have_text(clients)
            assert [member.num_running for member in fleet.members] == [4, 0, 0]
            wires[0].hold()
            await asyncio.wait_for(asyncio.gather(*tasks), 30)
            assert {(client.text, client.error) for client in clients} == {(_expected(60), "")}
            assert [client.record.num_continued for client in clients] == [1] * 4
            late = Client(model)
            await asyncio.wait_for(late.run(fleet), 30)
            assert (late.text, late.error) == (_expected(60), "")
            wires[0].mend()

    asyncio.run(run())


def test_a_sampled_answer_is_not_continued_unless_it_may_be(model: GatewayModel, wires: list[Wire]) -> None:
    async def run(*, continue_sampled: bool) -> Client:
        async with _fleet(wires[:2], continue_sampled=continue_sampled) as fleet:
            client = Client(model, temperature=1)
            task = asyncio.ensure_future(client.run(fleet))
            await _all_have_text([client])
            busy = next(index for index, member in enumerate(fleet.members) if member.num_running)
            wires[busy].cut()
            await asyncio.wait_for(task, 10)
            wires[busy].mend()
            return client

    client = asyncio.run(run(continue_sampled=False))
    assert "connection" in client.error
    assert client.text == _expected(len(client.text))
    client = asyncio.run(run(continue_sampled=True))
    assert (client.text, client.error, client.record.num_continued) == (_expected(60), "", 1)


def test_stop_texts_hold_across_servers(model: GatewayModel, wires: list[Wire]) -> None:
    async def run() -> None:
        async with _fleet(wires[:2]) as fleet:
            client = Client(model, stop=["xyzab"])
            task = asyncio.ensure_future(client.run(fleet))
            while len(client.text) < 20 and not task.done():
                await asyncio.sleep(0.001)
            busy = next(index for index, member in enumerate(fleet.members) if member.num_running)
            wires[busy].cut()
            await asyncio.wait_for(task, 10)
            assert (client.text, client.finish_reason) == (_expected(22), "stop")

    asyncio.run(run())


def test_draining_and_leaving_lose_nothing_and_newcomers_are_used(model: GatewayModel, wires: list[Wire]) -> None:
    async def run() -> None:
        async with _fleet(wires[:2]) as fleet:
            clients = [Client(model) for _ in range(8)]
            tasks = [asyncio.ensure_future(client.run(fleet)) for client in clients]
            await _all_have_text(clients)
            assert fleet.drain("s0")
            assert not fleet.drain("nobody")
            later = Client(model)
            tasks.append(asyncio.ensure_future(later.run(fleet)))
            await _all_have_text([later])
            assert [member.num_running for member in fleet.members] == [4, 5]
            newcomer = ServerOptions(name="s2", url=wires[2].url)
            fleet.set_servers([fleet.members[1].options, newcomer])
            assert [member.name for member in fleet.members] == ["s1", "s2"]
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
            assert {client.text for client in [*clients, later]} == {_expected(60)}
            last = Client(model)
            await last.run(fleet)
            assert last.record.num_continued is None

    asyncio.run(run())


def test_without_any_server_a_request_is_refused_at_once(model: GatewayModel, wires: list[Wire]) -> None:
    async def run() -> None:
        async with _fleet(wires[:1]) as fleet:
            wires[0].cut()
            began = time.monotonic()
            with pytest.raises(ApiError) as error:
                await Client(model).run(fleet)
            assert error.value.status == 503
            assert time.monotonic() - began < fleet.wait_s

    asyncio.run(run())
