"""A tritonserver over grpc.aio: slower for each message than HTTP/2 of our own, but gRPC's own code."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from scalellm_trt.gateway import channels
from scalellm_trt.gateway.errors import ApiError, from_status
from scalellm_trt.gateway.upstream import SERVICE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.gateway.express import Express
    from scalellm_trt.gateway.options import ServerTls
    from scalellm_trt.gateway.upstream import Listener, Message


class GrpcUpstream:
    """An `Upstream`. Calls take turns over the channels."""

    def __init__(self, url: str, num_connections: int, tls: ServerTls | None) -> None:
        """Prepare channels to `url` (`host:port`); the first calls open them."""
        from tritonclient.grpc import service_pb2

        self._messages = service_pb2
        self._channels = [channels.open_channel(url, tls) for _ in range(num_connections)]
        self._turns = itertools.cycle(self._channels)
        self._live: set[_GrpcCall] = set()

    async def start(self, request: Message, listener: Listener, metadata: Sequence[tuple[str, str]] = ()) -> _GrpcCall:
        """See `Upstream`; a server that is not there shows in the listener's `on_end`."""
        method = next(self._turns).stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=type(request).SerializeToString,
            response_deserializer=self._messages.ModelStreamInferResponse.FromString,
        )
        return _GrpcCall(method(metadata=tuple(metadata)), request, listener, self._live)

    async def unary(self, method: str, request: Message, timeout_s: float) -> Message:
        """See `Upstream`."""
        import grpc

        ask = self._channels[0].unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(self._messages, f"{method}Response").FromString,
        )
        try:
            return await ask(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_status(error.code().name, error.details() or "no reason given") from error

    def abandon(self, reason: str) -> None:
        """See `Upstream`; a channel opens its connections by itself."""
        for call in list(self._live):
            call.fail(ApiError(503, reason, code="upstream_unavailable"))

    def last_received_s(self) -> float | None:
        """See `Upstream`: the library does not tell."""
        return None

    def num_connections(self) -> int:
        """See `Upstream`."""
        import grpc

        return sum(channel.get_state() == grpc.ChannelConnectivity.READY for channel in self._channels)

    async def close(self) -> None:
        """See `Upstream`."""
        for channel in self._channels:
            await channel.close()


class _GrpcCall:
    """A `Call`: a task that reads one message at a time, only while somebody wants them."""

    def __init__(self, call: Any, request: Message, listener: Listener, live: set[_GrpcCall]) -> None:  # noqa: ANN401
        self._call, self._listener = call, listener
        live.add(self)
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._is_over = False
        self._task = asyncio.get_running_loop().create_task(self._read(request))
        self._task.add_done_callback(lambda _: live.discard(self))

    def cancel(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._call.cancel()
            self._task.cancel()

    def fail(self, error: ApiError) -> None:
        if not self._is_over:
            self.cancel()
            self._listener.on_end(error)

    def pause(self) -> None:
        self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def hurry(self, express: Express | None) -> None:
        """grpc.aio has parsed every message before it shows it."""

    async def _read(self, request: Message) -> None:
        import grpc

        error: ApiError | None = None
        try:
            await self._call.write(request)
            await self._call.done_writing()
            async for message in self._call:
                await self._may_read.wait()
                self._listener.on_messages([message])
        except grpc.aio.AioRpcError as failure:
            error = from_status(failure.code().name, failure.details() or "no reason given")
        await self._may_read.wait()
        if not self._is_over:
            self._is_over = True
            self._listener.on_end(error)
