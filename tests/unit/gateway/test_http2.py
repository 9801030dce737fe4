"""The HTTP/2 client against frames that were written by hand, in every cut."""

from __future__ import annotations

import asyncio
import functools
import struct
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.gateway import http2_connection
from scalellm_trt.gateway.http2_stream import WINDOW, Stream
from scalellm_trt.triton import grpc_messages
from scalellm_trt.triton import http2_frames as h2
from scalellm_trt.triton.grpc_messages import MessageError, MessageReader
from scalellm_trt.triton.http2_frames import FrameReader, Http2Error
from tests.fakes.http2_peer import Heard, Peer, data, go_away, message

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def answer(peer: Peer, stream_id: int = 1) -> bytes:
    """Return a whole answer: two messages in a frame, one over three frames, padding, trailers."""
    third = message("third" * 20)
    padded = bytes([4]) + message("fourth") + bytes(4)
    return b"".join(
        (
            peer.headers(stream_id),
            data(stream_id, message("first") + message("second")),
            data(stream_id, third[:3]),
            data(stream_id, third[3:50]),
            data(stream_id, b""),
            data(stream_id, third[50:]),
            data(stream_id, padded, h2.PADDED),
            peer.trailers(stream_id),
        )
    )


EXPECTED = ["first", "second", "third" * 20, "fourth"]


@in_loop
async def test_an_answer_is_the_same_however_it_is_cut() -> None:
    size = len(answer(Peer()))
    for cut in range(size + 1):
        peer, heard = Peer(), Heard()
        peer.start(heard)
        received = answer(peer)
        peer.send(received[:cut])
        peer.send(received[cut:])
        assert (heard.texts, heard.ends) == (EXPECTED, [None]), cut
    peer, heard = Peer(), Heard()
    peer.start(heard)
    for byte in answer(peer):
        peer.send(bytes([byte]))
    assert (heard.texts, heard.ends) == (EXPECTED, [None])


@in_loop
async def test_what_comes_in_one_read_is_told_at_once() -> None:
    peer, one, two = Peer(), Heard(), Heard()
    peer.start(one)
    peer.start(two)
    peer.send(answer(peer, 1), answer(peer, 3))
    assert one.reads == two.reads == [4]
    assert peer.connection.num_streams == 0


@in_loop
async def test_a_call_is_headers_and_a_half_closed_message() -> None:
    peer = Peer()
    peer.start(Heard(), b"abc")
    assert peer.new_frames()[-1] == (h2.DATA, h2.END_STREAM, 1, b"abc")


@in_loop
async def test_a_status_in_the_trailers_is_the_error() -> None:
    peer, heard, bare = Peer(), Heard(), Heard()
    peer.start(heard)
    peer.start(bare)
    peer.send(peer.headers(1), data(1, message("one")), peer.trailers(1, 3, "max_tokens: 50%25 %C3%A9"))
    peer.send(peer.headers(3, ((":status", "200"), ("grpc-status", "14"), ("grpc-message", "gone")), ends=True))
    assert heard.texts == ["one"]
    assert [(error.status, error.message) for error in heard.ends if error] == [(400, "max_tokens: 50% é")]
    assert [error.status for error in bare.ends if error] == [503]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (lambda peer: peer.headers(1, ((":status", "503"),), ends=True), 503),
        (lambda peer: peer.headers(1, ((":status", "200"),), ends=True), 500),
        (lambda peer: peer.headers(1) + data(1, b"", h2.END_STREAM), 500),
        (lambda peer: peer.headers(1) + data(1, message("x")[:4]) + peer.trailers(1), 500),
        (lambda peer: data(1, b"\1" + message("compressed")[1:]), 500),
        (lambda peer: data(1, grpc_messages.framed(b"\xff\xff\xff")), 500),
        (lambda peer: data(1, grpc_messages.framed(b"\xff\xff\xff"), h2.END_STREAM), 500),
        (lambda peer: h2.rst_stream(1, 2), 503),
        (lambda peer: data(7, b"x"), 503),
        (lambda peer: h2.frame(h2.PUSH_PROMISE, 0, 1, b"\0\0\0\2"), 503),
        (lambda peer: h2.frame(h2.CONTINUATION, 0, 1, b""), 503),
        (lambda peer: h2.frame(h2.HEADERS, 0, 1, b"") + data(1, b""), 503),
        (lambda peer: h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), 503),
        (lambda peer: h2.frame(h2.DATA, h2.PADDED, 1, b"\5abc"), 503),
        (lambda peer: h2.frame(h2.PING, 0, 0, b"short"), 503),
        (lambda peer: h2.frame(h2.SETTINGS, 0, 0, b"\0"), 503),
        (lambda peer: h2.settings({h2.SET_MAX_FRAME_SIZE: 5}), 503),
        (lambda peer: h2.settings({h2.SET_INITIAL_WINDOW_SIZE: 2**31}), 503),
        (lambda peer: h2.window_update(0, 2**31 - 1), 503),
        (lambda peer: h2.frame(h2.RST_STREAM, 0, 1, b""), 503),
        (lambda peer: b"HTTP/1.1 400 Bad Request\r\n\r\n", 503),
    ],
)
@in_loop
async def test_a_broken_answer_ends_the_call_once(ending: Callable[[Peer], bytes], status: int) -> None:
    peer, heard = Peer(), Heard()
    peer.start(heard)
    peer.send(ending(peer))
    peer.connection.connection_lost(None)
    assert [error and error.status for error in heard.ends] == [status]


@in_loop
async def test_headers_may_come_in_parts_and_unknown_frames_are_nothing() -> None:
    peer, heard = Peer(), Heard()
    peer.start(heard)
    block = peer.headers(1)[9:]
    peer.send(h2.frame(0x2A, 0, 1, b"?"), h2.frame(h2.HEADERS, h2.PRIORITY, 1, bytes(5) + block[:2]))
    peer.send(h2.frame(h2.CONTINUATION, 0, 1, block[2:4]), h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[4:]))
    peer.send(data(1, message("a")), peer.trailers(1))
    assert (heard.texts, heard.ends) == (["a"], [None])
    peer.start(heard)
    with_too_many = h2.frame(h2.HEADERS, 0, 3, b"") + h2.frame(h2.CONTINUATION, 0, 3, bytes(16_000)) * 5
    peer.send(with_too_many)
    assert peer.wire.is_closed


@in_loop
async def test_a_paused_call_stops_its_sender_and_goes_on_where_it_was() -> None:
    peer, slow, quick = Peer(), Heard(), Heard()
    stream = peer.start(slow)
    peer.start(quick)
    peer.new_frames()
    part = message("x" * 10_000)
    peer.send(peer.headers(1), data(1, part))
    stream.pause()
    for _ in range(5):
        peer.send(data(1, part))
    peer.send(peer.trailers(1), peer.headers(3), data(3, message("y")), peer.trailers(3))
    assert (slow.reads, slow.ends) == ([1], [])
    assert (quick.texts, quick.ends) == (["y"], [None])
    assert [frame for frame in peer.new_frames() if frame[0] == h2.WINDOW_UPDATE] == []
    slow.then = stream.pause
    stream.resume()
    assert (slow.reads, slow.ends) == ([1, 5], [])
    stream.resume()
    assert slow.ends == [None]


@in_loop
async def test_the_window_opens_as_messages_are_taken() -> None:
    peer, heard = Peer(), Heard()
    stream = peer.start(heard)
    part = message("x" * 9_000)
    stream.pause()
    for _ in range(6):
        peer.send(data(1, part))
    peer.new_frames()
    stream.resume()
    # A message that is longer than the window could never come otherwise.
    long = message("z" * 3 * WINDOW)
    for position in range(0, len(long), 16_000):
        peer.send(data(1, long[position : position + 16_000]))
    updates = [h2.number(frame[3]) for frame in peer.new_frames() if frame[:3] == (h2.WINDOW_UPDATE, 0, 1)]
    assert 6 * len(part) + len(long) - sum(updates) < WINDOW // 2
    assert heard.texts[-1] == "z" * 3 * WINDOW


@in_loop
async def test_the_connection_window_is_opened_whoever_reads() -> None:
    peer = Peer()
    streams = [peer.start(Heard()) for _ in range(20)]
    peer.new_frames()
    for stream in streams:
        stream.pause()
        for _ in range(4):
            peer.send(data(stream.stream_id, bytes(16_000)))
    assert [h2.number(frame[3]) for frame in peer.new_frames() if frame[2] == 0] == [66 * 16_000]


@in_loop
async def test_a_long_request_waits_for_both_windows() -> None:
    peer = Peer({h2.SET_INITIAL_WINDOW_SIZE: 100_000, h2.SET_MAX_FRAME_SIZE: 50_000})
    request = bytes(range(256)) * 1000
    peer.start(Heard(), request)

    def new() -> bytes:
        frames = [frame for frame in _large_frames(peer) if frame[0] == h2.DATA]
        ends.extend(frame[1] for frame in frames)
        return b"".join(frame[3] for frame in frames)

    ends: list[int] = []
    sent = new()
    assert len(sent) == h2.DEFAULT_WINDOW
    peer.send(h2.window_update(1, 1_000_000))
    assert new() == b""
    peer.send(h2.window_update(0, 100_000))
    sent += new()
    assert len(sent) == h2.DEFAULT_WINDOW + 100_000
    assert not any(ends)
    peer.send(h2.window_update(0, 1_000_000))
    assert sent + new() == request
    assert ends[-1] == h2.END_STREAM
    other = Peer({h2.SET_INITIAL_WINDOW_SIZE: 10})
    other.start(Heard(), b"x" * 20)
    other.send(h2.settings({h2.SET_INITIAL_WINDOW_SIZE: 15}))
    assert [len(frame[3]) for frame in other.new_frames() if frame[0] == h2.DATA] == [10, 5]


def _large_frames(peer: Peer) -> list[h2.Frame]:
    """Read frames longer than this client itself would take."""
    new, peer._num_seen = peer.wire.written[peer._num_seen :], len(peer.wire.written)
    frames = []
    while new:
        size = int.from_bytes(new[:3], "big")
        frames.append((new[3], new[4], int.from_bytes(new[5:9], "big"), new[9 : 9 + size]))
        new = new[9 + size :]
    return frames


@in_loop
async def test_cancel_is_a_reset_and_nothing_follows() -> None:
    peer, heard = Peer(), Heard()
    stream = peer.start(heard)
    peer.send(peer.headers(1), data(1, message("a")))
    peer.new_frames()
    stream.cancel()
    stream.cancel()
    assert peer.new_frames() == [(h2.RST_STREAM, 0, 1, struct.pack(">I", h2.CANCEL))]
    peer.send(data(1, message("late")), peer.trailers(1))
    assert (heard.texts, heard.ends) == (["a"], [])
    other = peer.start(heard)
    heard.then = other.cancel
    peer.send(peer.headers(3), data(3, message("b") + message("c")), data(3, message("d")), peer.trailers(3))
    assert heard.texts == ["a", "b", "c", "d"]
    assert heard.ends == []
    # What has ended is not reset: Triton would keep it for ever.
    assert peer.new_frames()[-1][0] == h2.DATA


@in_loop
async def test_goaway_lets_calls_end_that_the_server_has_taken() -> None:
    peer, taken, refused = Peer(), Heard(), Heard()
    peer.start(taken)
    peer.start(refused)
    peer.send(peer.headers(1), data(1, message("a")), go_away(1, "too_many_pings"))
    assert not peer.connection.has_room
    assert ["too_many_pings" in error.message for error in refused.ends if error] == [True]
    assert not peer.wire.is_closed
    peer.send(data(1, message("b")), peer.trailers(1))
    assert (taken.texts, taken.ends) == (["a", "b"], [None])
    assert peer.wire.is_closed


@pytest.mark.parametrize("refusal", [go_away(0), h2.rst_stream(1, h2.REFUSED_STREAM)])
@in_loop
async def test_a_call_that_was_not_taken_may_be_tried_again_once(refusal: bytes) -> None:
    peer, heard = Peer(), Heard()
    stream = peer.start(heard)
    again: list[Stream] = []
    stream.on_refused = again.append
    peer.send(refusal)
    assert (again, heard.ends) == ([stream], [])
    stream.begin()
    other = Peer()
    other.connection.start(stream)
    other.send(refusal)
    assert [error.status for error in heard.ends if error] == [503]


@in_loop
async def test_a_lost_connection_fails_what_is_live_after_what_came() -> None:
    peer, live, held = Peer(), Heard(), Heard()
    peer.start(live)
    stream = peer.start(held)
    stream.pause()
    peer.send(peer.headers(1), data(1, message("a")), peer.headers(3), data(3, message("b")))
    peer.connection.connection_lost(ConnectionResetError("reset"))
    assert live.texts == ["a"]
    assert [error.status for error in live.ends if error] == [503]
    assert held.texts == []
    stream.resume()
    assert (held.texts, len(held.ends)) == (["b"], 1)


@in_loop
async def test_pings_are_answered() -> None:
    peer = Peer()
    peer.send(h2.frame(h2.PING, 0, 0, b"12345678"), h2.settings({}))
    assert peer.new_frames() == [(h2.PING, h2.ACK, 0, b"12345678"), (h2.SETTINGS, h2.ACK, 0, b"")]


@in_loop
async def test_a_silent_server_is_asked_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connection, "KEEPALIVE_S", 0.0)
    monkeypatch.setattr(http2_connection, "KEEPALIVE_TIMEOUT_S", 0.1)
    peer, heard = Peer(), Heard()
    await asyncio.sleep(0.02)
    assert peer.new_frames() == []
    peer.start(heard)
    asked = 0
    while asked < 2:
        await asyncio.sleep(0.002)
        for frame in peer.new_frames():
            if frame[0] == h2.PING:
                asked += 1
                peer.send(h2.frame(h2.PING, h2.ACK, 0, frame[3]))
    # Two without data are what a gRPC server bears.
    await asyncio.sleep(0.02)
    assert (peer.new_frames(), heard.ends) == ([], [])
    peer.send(peer.headers(1))
    while not heard.ends:
        await asyncio.sleep(0.002)
    assert heard.ends[0] is not None
    assert "silent" in heard.ends[0].message
    assert peer.wire.is_closed


def test_frames_and_messages_refuse_what_is_too_long() -> None:
    with pytest.raises(Http2Error, match="16384 are allowed"):
        FrameReader().feed(h2.frame(h2.DATA, 0, 1, bytes(16_385)))
    with pytest.raises(MessageError, match="a message of"):
        MessageReader().feed(struct.pack(">BI", 0, grpc_messages.MAX_MESSAGE_BYTES + 1))
