"""The served side's client: a gRPC stream per request over the gateway's own HTTP/2 client, in a process of its own.

python -m scripts.benchmarks.sides.grpc_client HOST:PORT MODEL

Not `tritonclient.grpc.aio`: on a machine whose cores the model fills, a client takes its time from the server, and that
one takes 0.55 ms for each response, as much as the server does.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

import uvloop

from scalellm_trt.gateway.http2_upstream import Http2Upstream
from scripts.benchmarks.sides import streamed_answer, worker

if TYPE_CHECKING:
    from scalellm_trt.gateway.errors import ApiError

Deliveries = list[tuple[float, int]]


class _Answer:
    """Listens to one call; `done` holds when how many tokens came, in seconds since `started`."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._deliveries: Deliveries = []
        self.done: asyncio.Future[Deliveries] = asyncio.get_running_loop().create_future()

    def on_messages(self, messages: list[Any]) -> None:
        now = time.perf_counter() - self._started
        for message in messages:
            if message.error_message:
                self.done.set_exception(RuntimeError(message.error_message))
                return
            response = message.infer_response
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
                if output.name == "num_output_tokens":
                    self._deliveries.append((now, *struct.unpack("<i", raw)))

    def on_end(self, error: ApiError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(self._deliveries)
        else:
            self.done.set_exception(error)


def encode(model: str, prompt: str, num_tokens: int) -> Any:  # noqa: ANN401  protobuf's classes have no types
    """Return the `ModelInferRequest` for exactly `num_tokens` streamed tokens."""
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    for name, values in streamed_answer.tensors(
        text_input=prompt,
        max_tokens=num_tokens,
        min_tokens=num_tokens,
        stream=True,
        return_num_output_tokens=True,
    ).items():
        kind = np_to_triton_dtype(values.dtype)
        request.inputs.add(name=name, datatype=kind, shape=values.shape)
        raw = serialize_byte_tensor(values).item() if kind == "BYTES" else values.tobytes()
        request.raw_input_contents.append(raw)
    return request


async def run(url: str, model: str, prompts: list[str], num_tokens: int) -> list[Deliveries]:
    """Send all prompts at once and take their answers.

    Raises:
        ApiError: the server is not there.
        RuntimeError: the model refused or failed.
    """
    from tritonclient.grpc import service_pb2

    upstream = Http2Upstream(url, 1)
    await upstream.unary("ServerReady", service_pb2.ServerReadyRequest(), 5)
    requests = [encode(model, prompt, num_tokens) for prompt in prompts]
    started = time.perf_counter()
    answers = [_Answer(started) for _ in prompts]
    for request, answer in zip(requests, answers, strict=True):
        await upstream.start(request, answer)
    deliveries = [await answer.done for answer in answers]
    await upstream.close()
    return deliveries


def main() -> None:
    url, model = sys.argv[1:]

    def answer(question: dict[str, Any]) -> dict[str, object]:
        return {"streams": uvloop.run(run(url, model, question["prompt_texts"], question["num_tokens"]))}

    worker.answer_questions({}, answer)


if __name__ == "__main__":
    main()
