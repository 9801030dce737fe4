"""What a stream used is on disk before its client sees the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from starlette.requests import Request

from scalellm_trt.gateway import jobs, served
from scalellm_trt.gateway.app import Gateway
from scalellm_trt.gateway.event_stream import EventStream
from scalellm_trt.gateway.front import RECORD
from scalellm_trt.gateway.metrics import Metrics
from scalellm_trt.gateway.options import GatewayOptions
from scalellm_trt.gateway.replies import CompletionDialect
from scalellm_trt.gateway.request_log import new_record
from scalellm_trt.gateway.running import Running
from scalellm_trt.gateway.schemas import CompletionRequest
from scalellm_trt.gateway.tenants import ledger_files
from scalellm_trt.gateway.tenants.fair_queue import FairQueue
from scalellm_trt.gateway.tenants.tenancy import Tenancy
from tests.fakes.gateways import MODEL, write_repository
from tests.fakes.token_server import _message as message

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.gateway.upstream import Listener


class Server:
    """An upstream whose call brings two tokens and an end of the test's choice."""

    server_url = None

    def __init__(self, end: Any) -> None:
        self._end = end

    async def start(self, request: Any, listener: Listener, metadata: Any = ()) -> Server:
        letters = [message(0, [65], "", {}, is_final=False), message(0, [66], "", {}, is_final=False)]
        asyncio.get_running_loop().call_soon(listener.on_messages, letters)
        asyncio.get_running_loop().call_soon(listener.on_messages, [self._end])
        return self

    def cancel(self) -> None:
        pass

    def hurry(self, express: Any) -> None:
        pass


@pytest.mark.parametrize("is_whole", [True, False])
def test_usage_is_on_record_before_the_last_event(tmp_path: Path, is_whole: bool) -> None:
    (model,) = served.load(write_repository(tmp_path / "repository")).values()
    options = GatewayOptions(ledger_directory=tmp_path / "usage")
    request = CompletionRequest.model_validate({"model": MODEL, "prompt": "abc", "stream": True})
    job, metrics = jobs.of_completion(request, model, options, "r"), Metrics()
    record = new_record("POST", "/", {})
    record.model = MODEL
    noted: list[int] = []

    async def send(sent: Any) -> None:
        if sent["type"] == "http.response.body" and not sent["more_body"]:
            used = ledger_files.add_up(ledger_files.hours(tmp_path / "usage").values()).used
            noted.extend(each.completion_tokens for each in used.values())

    async def answer() -> None:
        end: Any = message(0, [67], "length", {}, is_final=True)
        if not is_whole:
            end.error_message = "the engine died"
        with Tenancy(options).opened(0, FairQueue(), metrics).visit(record):
            running = Running(job, metrics, record)
            events = EventStream(send, running, CompletionDialect(job), include_usage=False)
            await events.run(Server(end))  # type: ignore[arg-type]  # what the stream needs of an upstream

    asyncio.run(answer())
    assert noted == [3 if is_whole else 2]


def test_usage_is_on_record_before_a_whole_answer_is_sent(tmp_path: Path) -> None:
    models = served.load(write_repository(tmp_path / "repository"))
    gateway = Gateway(models, GatewayOptions(ledger_directory=tmp_path / "usage"))
    gateway._fleet = Server(message(0, [67], "length", {}, is_final=True))  # type: ignore[assignment]
    record = new_record("POST", "/v1/completions", {})
    scope = {"type": "http", "method": "POST", "path": record.path, "headers": [], RECORD: record}
    body = orjson.dumps({"model": MODEL, "prompt": "abc", "max_tokens": 3})
    noted: dict[str, int] = {}

    async def receive() -> Any:
        if not noted.setdefault("asked", 0):
            noted["asked"] = 1
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.Event().wait()  # the client stays

    async def send(sent: Any) -> None:
        used = ledger_files.add_up(ledger_files.hours(tmp_path / "usage").values()).used
        noted[sent["type"]] = sum(each.completion_tokens for each in used.values())

    asyncio.run(gateway.completion(Request(scope, receive), send))
    assert noted == {"asked": 1, "http.response.start": 3, "http.response.body": 3}
