"""Tokens that are not parsed: only where a message differs from the one before in its token, and with the same text."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any

import pytest
from tritonclient.grpc import service_pb2

from scalellm_trt.gateway.express import Mould
from scalellm_trt.gateway.http2_connection import ACKNOWLEDGE_BYTES
from scalellm_trt.gateway.http2_stream import WINDOW
from scalellm_trt.triton import grpc_messages
from scalellm_trt.triton import http2_frames as h2
from tests.fakes.http2_peer import Heard, Peer, data
from tests.fakes.token_server import _message as token_message
from tests.unit.gateway.test_http2 import in_loop

if TYPE_CHECKING:
    from collections.abc import Sequence

NUM_READS = 20_000


def plain(*token_ids: int, reason: str = "", is_final: bool = False) -> bytes:
    made: bytes = token_message(0, list(token_ids), reason, {}, is_final=is_final).SerializeToString()
    return made


def cpp(token_id: int, request_id: str = "r") -> bytes:
    """Return a message in the C++ backend's shape."""
    message = service_pb2.ModelStreamInferResponse()
    response = message.infer_response
    response.model_name, response.model_version, response.id = "m_engine", "1", request_id
    response.parameters["triton_final_response"].bool_param = False
    for name, shape, raw in (
        ("output_ids", [1, 1, 1], struct.pack("<i", token_id)),
        ("sequence_length", [1, 1], struct.pack("<i", 1)),
        ("cum_log_probs", [1, 1], struct.pack("<f", 0.0)),
    ):
        response.outputs.add(name=name, datatype="INT32", shape=shape)
        response.raw_output_contents.append(raw)
    made: bytes = message.SerializeToString()
    return made


@pytest.mark.parametrize("make", [plain, cpp])
def test_a_mould_finds_the_token_of_messages_that_are_alike(make: Any) -> None:
    mould = Mould.of(make(70), 70)
    assert mould is not None
    # Also numbers whose bytes are another output's, or the head of a field.
    assert [mould.token_id(make(token_id)) for token_id in (0, 1, 0x0432, 49151, -1)] == [0, 1, 0x0432, 49151, -1]


@pytest.mark.parametrize(
    "other",
    [
        plain(70, reason="stop"),
        plain(70, is_final=True),
        plain(70, 71),
        plain(),
        plain(70) + b"\n",
        plain(70)[:-1],
        b"",
        token_message(1, [70], "", {"num_return_sequences": [2]}, is_final=False).SerializeToString(),
        token_message(0, [70], "", {"return_log_probs": [1]}, is_final=False).SerializeToString(),
        service_pb2.ModelStreamInferResponse(error_message="x" * 90).SerializeToString(),
    ],
)
def test_a_message_that_differs_in_anything_else_is_not_alike(other: bytes) -> None:
    mould = Mould.of(plain(70), 70)
    assert mould is not None
    assert mould.token_id(other) is None
    foreign = Mould.of(cpp(70), 70)
    assert foreign is not None
    assert foreign.token_id(cpp(71, "s")) is None


def test_where_it_is_not_clear_which_number_is_the_token_there_is_no_mould() -> None:
    assert Mould.of(plain(1), 1) is None  # as the length is
    assert Mould.of(plain(70), 71) is None


class Hurried(Heard):
    """Listens, and takes tokens; every message was a plain one unless `is_plain` says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[list[int]] = []
        self.is_plain, self.needs_messages = True, False
        self._last: list[Any] = []

    def on_messages(self, messages: list[Any]) -> None:
        self._last = messages
        super().on_messages(messages)

    def last_token(self) -> int | None:
        raw = self._last[-1].infer_response.raw_output_contents
        return struct.unpack("<i", raw[0])[0] if self.is_plain else None

    def on_tokens(self, token_ids: Sequence[int]) -> bool:
        if self.needs_messages:
            return False
        self.tokens.append(list(token_ids))
        self.then()
        return True


def begin() -> tuple[Peer, Hurried, Any]:
    peer, hurried = Peer(), Hurried()
    stream = peer.start(hurried)
    stream.hurry(hurried)
    peer.send(peer.headers(1))
    return peer, hurried, stream


def bring(peer: Peer, *messages: bytes) -> None:
    peer.send(*(data(1, grpc_messages.framed(message)) for message in messages))


@in_loop
async def test_tokens_take_the_short_way_after_the_first_that_was_parsed() -> None:
    peer, hurried, _ = begin()
    bring(peer, plain(70))
    bring(peer, plain(71))
    bring(peer, plain(72), plain(73))
    bring(peer, plain(74), plain(75, reason="length", is_final=True))
    peer.send(peer.trailers(1))
    assert hurried.tokens == [[71], [72, 73]]
    assert hurried.reads == [1, 2]  # what comes with a message that is not plain goes its way, in order
    assert [message.infer_response.raw_output_contents[0] for message in hurried._last] == [
        struct.pack("<i", number) for number in (74, 75)
    ]
    assert hurried.ends == [None]


@in_loop
async def test_tokens_that_come_alone_and_together_keep_their_order() -> None:
    peer, hurried, _ = begin()
    bring(peer, plain(70))
    peer.new_frames()
    size = len(grpc_messages.framed(plain(70)))
    received, opened = size, {0: 0, 1: 0}
    for number in range(NUM_READS):  # past both windows' limits, so that they must be opened again
        together = range(1 + number % 3 // 2)
        bring(peer, *(plain(100 + number + each) for each in together))
        received += len(together) * size
        for kind, _, stream_id, payload in peer.new_frames():
            if kind == h2.WINDOW_UPDATE:
                opened[stream_id] += h2.number(payload)
        assert max(opened.values()) <= received  # wider is as wrong as too narrow
    assert hurried.tokens == [
        [100 + number + each for each in range(1 + number % 3 // 2)] for number in range(NUM_READS)
    ]
    assert received - opened[1] < WINDOW // 2
    assert ACKNOWLEDGE_BYTES < opened[0] > received - ACKNOWLEDGE_BYTES - WINDOW


@in_loop
async def test_a_frame_alone_that_ends_a_message_begun_before_is_no_message() -> None:
    peer, hurried, _ = begin()
    bring(peer, plain(70))
    inner = grpc_messages.framed(plain(71))
    outer = grpc_messages.framed(plain(72) + inner)  # holds what looks like a message of its own
    peer.send(data(1, outer[: -len(inner)]))
    peer.send(data(1, inner))
    assert hurried.tokens == []


@in_loop
async def test_a_frame_alone_that_ends_a_frame_begun_before_is_no_frame() -> None:
    peer, hurried, _ = begin()
    bring(peer, plain(70))
    inner = data(1, grpc_messages.framed(plain(71)))
    outer = data(1, grpc_messages.framed(plain(72) + inner))
    peer.send(outer[: -len(inner)])
    peer.send(inner)
    assert hurried.tokens == []


@in_loop
async def test_a_plain_token_inside_a_header_block_breaks_the_connection() -> None:
    peer, hurried, _ = begin()
    bring(peer, plain(70))
    peer.send(h2.frame(h2.HEADERS, 0, 1, b""))
    bring(peer, plain(71))
    assert (hurried.tokens, [error and error.status for error in hurried.ends]) == ([], [503])


@in_loop
async def test_a_listener_that_takes_its_offer_back_gets_messages() -> None:
    peer, hurried, stream = begin()
    bring(peer, plain(70))
    bring(peer, plain(71))
    stream.hurry(None)
    bring(peer, plain(72))
    bring(peer, plain(73), plain(74))
    assert (hurried.tokens, hurried.reads) == ([[71]], [1, 1, 2])


@in_loop
async def test_what_the_listener_does_not_call_plain_is_parsed() -> None:
    peer, hurried, _ = begin()
    hurried.is_plain = False
    for number in (70, 71):
        bring(peer, plain(number))
    hurried.is_plain = True
    for number in (1, 72, 73):  # with 1 it is not clear where
        bring(peer, plain(number))
    assert (hurried.reads, hurried.tokens) == ([1, 1, 1, 1], [[73]])


@in_loop
async def test_a_listener_that_needs_the_messages_gets_them() -> None:
    peer, hurried, _ = begin()
    bring(peer, plain(70))
    hurried.needs_messages = True
    bring(peer, plain(71), plain(72))
    assert (hurried.reads, hurried.tokens) == ([1, 2], [])
    assert [message.infer_response.raw_output_contents[0] for message in hurried._last] == [
        struct.pack("<i", number) for number in (71, 72)
    ]


@in_loop
async def test_a_listener_that_offers_nothing_gets_messages() -> None:
    peer, heard = Peer(), Heard()
    peer.start(heard)
    peer.send(peer.headers(1))
    bring(peer, plain(70))
    bring(peer, plain(71))
    assert heard.reads == [1, 1]


@in_loop
async def test_a_paused_call_brings_its_tokens_when_it_goes_on() -> None:
    peer, hurried, stream = begin()
    bring(peer, plain(70))
    hurried.then = stream.pause
    bring(peer, plain(71))
    hurried.then = lambda: None
    bring(peer, plain(72))
    bring(peer, plain(73))
    assert hurried.tokens == [[71]]
    stream.resume()
    assert hurried.tokens == [[71], [72, 73]]
    await asyncio.sleep(0)


@in_loop
async def test_a_reset_after_tokens_is_told_after_them() -> None:
    peer, hurried, _ = begin()
    bring(peer, plain(70))
    peer.send(data(1, grpc_messages.framed(plain(71))), h2.rst_stream(1, 2))
    assert hurried.tokens == [[71]]
    assert [error and error.status for error in hurried.ends] == [503]
