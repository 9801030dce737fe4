"""Generations in, tokens out: a pool of reused gRPC connections to one tritonserver, a stream for each request.

The request is written and the stream half-closed at once; tokens are read one message at a time, only when somebody
wants them, so that a slow reader stops the sender and not our memory. Leaving the iteration early cancels the
generation on the server.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from scalellm_trt.gateway import channels, tensors
from scalellm_trt.gateway.errors import ApiError, from_model, from_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from scalellm_trt.gateway.options import ServerTls
    from scalellm_trt.gateway.tensors import Generation, TokenChunk

    Metadata = tuple[tuple[str, str], ...]

READY_TIMEOUT_S: Final = 1.0


class Upstream:
    """One tritonserver. To be made, used and closed in one event loop."""

    def __init__(self, url: str, num_channels: int, tls: ServerTls | None = None) -> None:
        """Prepare `num_channels` connections to `url` (`host:port`); they are opened by the first requests."""
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        self._messages = service_pb2
        self._channels = [channels.open_channel(url, tls) for _ in range(num_channels)]
        self._stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in self._channels]
        self._turns = itertools.cycle(self._stubs)

    async def generate(self, generation: Generation, metadata: Metadata = ()) -> AsyncGenerator[TokenChunk, None]:
        """Yield the tokens as the model makes them; closing the iterator cancels the generation.

        Args:
            generation: what to ask for.
            metadata: names and values sent along as HTTP/2 headers, such as `traceparent`.

        Raises:
            ApiError: the server does not answer, or refuses.
        """
        import grpc

        call: Any = next(self._turns).ModelStreamInfer(metadata=metadata or None)
        is_over = False
        try:
            await call.write(tensors.encode(generation))
            await call.done_writing()
            async for message in call:
                response = message.infer_response
                # Triton 2.51 never forgets a request that is cancelled after it ended: remember before anything else.
                is_over = is_over or _is_final(message)
                if message.error_message:
                    raise from_model(message.error_message)
                for chunk in tensors.decode(response):
                    yield chunk
            if not is_over:
                raise ApiError(500, "the model's server ended the answer before it was complete")
        except grpc.aio.AioRpcError as error:
            is_over = True
            raise from_status(error.code().name, error.details() or "no reason given") from error
        finally:
            if not is_over:
                call.cancel()

    async def unary(self, method: str, request: Any, timeout_s: float) -> Any:  # noqa: ANN401  protobuf has no types
        """Return the answer of a method such as `ServerReady` to a request of its type, `ServerReadyRequest`.

        Raises:
            ApiError: the server does not answer in time, or refuses.
        """
        import grpc

        try:
            return await getattr(self._stubs[0], method)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_status(error.code().name, error.details() or "no reason given") from error

    async def is_ready(self) -> bool:
        """Return whether the server has loaded its models."""
        try:
            answer = await self.unary("ServerReady", self._messages.ServerReadyRequest(), READY_TIMEOUT_S)
        except ApiError:
            return False
        return bool(answer.ready)

    def num_connections(self) -> int:
        """Return how many connections stand."""
        import grpc

        return sum(channel.get_state() == grpc.ChannelConnectivity.READY for channel in self._channels)

    async def close(self) -> None:
        """End every connection; what still runs is cancelled."""
        for channel in self._channels:
            await channel.close()


def _is_final(message: Any) -> bool:  # noqa: ANN401  protobuf's generated class has no types
    """Return whether nothing follows; an error is the last message of its request too."""
    return bool(message.error_message) or message.infer_response.parameters["triton_final_response"].bool_param
