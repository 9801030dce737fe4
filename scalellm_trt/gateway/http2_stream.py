"""One gRPC call on an HTTP/2 connection: DATA and trailers in, parsed messages and the end out to its listener."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.errors import ApiError, from_status
from scalellm_trt.gateway.express import Mould
from scalellm_trt.triton import grpc_messages
from scalellm_trt.triton import http2_frames as h2
from scalellm_trt.triton.grpc_messages import MessageError, MessageReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scalellm_trt.gateway.express import Express
    from scalellm_trt.gateway.http2_connection import Connection
    from scalellm_trt.gateway.upstream import Listener, Message

WINDOW: Final = 65_536
"""Bytes that a call may receive before its listener has taken them: what a slow reader costs at most."""
_MESSAGE_START: Final = h2.HEAD_SIZE + grpc_messages.HEAD_SIZE
"""Where the message begins in a frame that holds one."""


class Stream:
    """A call. Its connection feeds it; whoever started it may pause, resume and cancel it.

    Attributes:
        head: the header block of the request.
        unsent: what of the request the peer's windows have not let through.
        send_window: bytes that the peer takes now.
        headers: of the response; trailers replace those of the same name.
        may_retry: the peer said that it did nothing for this call.
        on_refused: told instead of the listener when a call may be tried again, once.
    """

    __slots__ = (
        "_error", "_express", "_frame_mould", "_has_ended", "_held", "_is_over", "_is_paused", "_last", "_listener",
        "_messages", "_mould", "_num_unacknowledged", "_parse", "_plain", "_reader", "_request", "_token_ids",
        "connection", "head", "headers", "may_retry", "on_refused", "send_window", "stream_id", "unsent",
    )  # fmt: skip

    def __init__(self, head: bytes, request: bytes, listener: Listener, parse: Callable[[bytes], Message]) -> None:
        """Prepare a call of one framed request; `parse` makes a message of its bytes."""
        self.head, self._request = head, memoryview(request)
        self.on_refused: Callable[[Stream], None] | None = None
        self._listener, self._parse = listener, parse
        self._is_paused = self._is_over = False
        self._held: list[bytes] = []
        self._express: Express | None = None
        self.begin()

    def begin(self) -> None:
        """Forget an attempt that came to nothing; also the first time."""
        self.connection: Connection | None = None
        self.stream_id = 0
        self.unsent = self._request
        self.send_window = 0
        self.headers: dict[str, str] = {}
        self.may_retry = False
        self._reader = MessageReader()
        self._messages: list[Message] = []
        self._mould: Mould | None = None  # of a message
        self._frame_mould: Mould | None = None  # of a frame that holds one
        self._plain: list[bytes] = []
        self._token_ids: list[int] = []
        self._last = b""
        self._num_unacknowledged = 0
        self._has_ended = False
        self._error: ApiError | None = None

    @property
    def is_over(self) -> bool:
        """Whether the listener has been told the end, or wants to hear of none."""
        return self._is_over

    def cancel(self) -> None:
        """See `upstream.Call`."""
        if not self._is_over:
            self._is_over = True
            self._held.clear()
            if self.connection is not None:
                self.connection.cancel(self)

    def pause(self) -> None:
        """See `upstream.Call`."""
        self._is_paused = True

    def resume(self) -> None:
        """See `upstream.Call`."""
        self._is_paused = False
        held, self._held = self._held, []
        if held and not self._is_over:
            num_bytes = self.take(b"".join(held))
            if num_bytes and self.connection is not None:
                self.connection.acknowledge(self, num_bytes)
        self.deliver()

    def hurry(self, express: Express | None) -> None:
        """See `upstream.Call`."""
        self._express = express
        if express is None:
            self._set_mould(None)

    def take(self, data: bytes) -> int:
        """Take the content of DATA; return by how much the sender's window may be opened again, 0 for not yet."""
        if self._is_paused:
            self._held.append(data)
            return 0
        try:
            for message in self._reader.feed(data):
                self._take_message(message)
        except MessageError as error:
            self._break_off(f"the server sent {error}")
        except Exception as unreadable:
            # protobuf's DecodeError, whose class depends on its implementation.
            self._break_off(f"the server sent a message that is none: {unreadable}")
        self._num_unacknowledged += len(data)
        if self._num_unacknowledged < WINDOW // 2:
            return 0
        num_bytes, self._num_unacknowledged = self._num_unacknowledged, 0
        return num_bytes

    def pass_by(self, data: bytes) -> bool:
        """Take `data` if it is one frame with one message that is like the one before but for its token.

        Returns:
            False when it must be taken apart, as it must for the sender's window to be opened again.
        """
        mould = self._frame_mould
        if mould is None or self._is_paused or self._is_over or self._reader.num_bytes:
            return False
        num_bytes = self._num_unacknowledged + len(data) - h2.HEAD_SIZE
        if num_bytes >= WINDOW // 2 or (token_id := mould.token_id(data)) is None:
            return False
        self._num_unacknowledged = num_bytes
        if self._express is None or not self._express.on_tokens((token_id,)):
            self._listener.on_messages([self._parse(data[_MESSAGE_START:])])
        return True

    def end(self, trailers: Mapping[str, str]) -> None:
        """Take the end of the call."""
        self.headers.update(trailers)
        name, details = grpc_messages.status(self.headers)
        if name != "OK":
            self.fail(from_status(name, details or "no reason given"))
        elif self._reader.num_bytes and not self._held:
            self.fail(ApiError(500, "the model's server ended the answer in the middle of a message"))
        else:
            self.fail(None)

    def fail(self, error: ApiError | None) -> None:
        """Note how the call ended; `deliver` tells the listener after all messages."""
        self._has_ended, self._error = True, error

    def deliver(self) -> None:
        """Tell the listener what is new."""
        if self._is_paused or self._is_over:
            return
        if self._token_ids:
            token_ids, self._token_ids = self._token_ids, []
            plain, self._plain = self._plain, []
            if self._express is None or not self._express.on_tokens(token_ids):
                self._listener.on_messages([self._parse(message) for message in plain])
        elif self._messages:
            messages, self._messages = self._messages, []
            self._listener.on_messages(messages)
            if self._express is not None and len(messages) == 1:
                token_id = self._express.last_token()
                self._set_mould(None if token_id is None else Mould.of(self._last, token_id))
        # The listener may just have paused or cancelled this call.
        if self._has_ended and not self._is_paused and not self._is_over:
            retry, self.on_refused = self.on_refused, None
            if retry is not None and self.may_retry and not self.headers:
                retry(self)
                return
            self._is_over = True
            self._listener.on_end(self._error)

    def _set_mould(self, mould: Mould | None) -> None:
        self._mould = self._frame_mould = mould
        if mould is not None:
            head = h2.frame(h2.DATA, 0, self.stream_id, grpc_messages.framed(self._last))[:_MESSAGE_START]
            self._frame_mould = mould.within(head)

    def _take_message(self, message: bytes) -> None:
        token_id = None if self._mould is None or self._messages else self._mould.token_id(message)
        if token_id is not None:
            self._plain.append(message)
            self._token_ids.append(token_id)
            return
        # What came before it in the same read goes the same way.
        self._messages += map(self._parse, self._plain)
        self._plain.clear()
        self._token_ids.clear()
        self._messages.append(self._parse(message))
        self._last = message

    def _break_off(self, message: str) -> None:
        self.fail(ApiError(500, message))
        if self.connection is not None:
            self.connection.cancel(self)
