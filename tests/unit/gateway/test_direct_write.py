from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scalellm_trt.gateway import direct_write
from tests.fakes.http2_peer import Wire


class Cycle(SimpleNamespace):
    """What of uvicorn's cycle matters."""


def cycle(**changes: Any) -> Any:
    state = {"chunked_encoding": True, "disconnected": False, "response_complete": False}
    return Cycle(
        **state | changes, flow=SimpleNamespace(write_paused=changes.pop("is_paused", False)), transport=Wire()
    )


def test_a_part_is_one_chunk_in_one_write() -> None:
    scope: dict[str, Any] = {}
    answering = cycle()
    direct_write.offer(scope, answering)
    write = direct_write.writer_of(scope)
    assert write is not None
    assert write(b"data: 0123456789\n\n")
    assert answering.transport.written == b"12\r\ndata: 0123456789\n\n\r\n"


@pytest.mark.parametrize(
    "state",
    [{"chunked_encoding": None}, {"disconnected": True}, {"response_complete": True}, {"is_paused": True}],
)
def test_what_cannot_be_written_now_goes_by_asgi(state: dict[str, Any]) -> None:
    scope: dict[str, Any] = {}
    answering = cycle(**state)
    direct_write.offer(scope, answering)
    write = direct_write.writer_of(scope)
    assert write is not None
    assert not write(b"x")
    assert answering.transport.written == b""


def test_neither_request_nor_answer_keeps_the_other() -> None:
    scope: dict[str, Any] = {}
    answering = cycle()
    direct_write.offer(scope, answering)
    write = direct_write.writer_of(scope)
    del answering
    assert write is not None
    assert not write(b"x")


def test_elsewhere_there_is_none() -> None:
    assert direct_write.writer_of({}) is None
