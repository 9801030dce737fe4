"""The served side's client: `tritonclient.grpc.aio`, one gRPC stream per request, in a process of its own.

python -m scripts.benchmarks.sides.grpc_client HOST:PORT MODEL
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from scripts.benchmarks.sides import worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tritonclient.grpc.aio import InferenceServerClient, InferInput

Deliveries = list[tuple[float, int]]


def input_tensors(values: Mapping[str, object]) -> list[InferInput]:
    """Return a request's inputs, each of shape (1, 1); the type follows from the Python type."""
    from tritonclient.grpc.aio import InferInput

    kinds: dict[type, tuple[str, Any]] = {
        str: ("BYTES", np.object_),
        bool: ("BOOL", np.bool_),
        int: ("INT32", np.int32),
        float: ("FP32", np.float32),
    }
    inputs = []
    for name, value in values.items():
        kind, dtype = kinds[type(value)]
        tensor = InferInput(name, [1, 1], kind)
        tensor.set_data_from_numpy(np.array([[value.encode() if isinstance(value, str) else value]], dtype=dtype))
        inputs.append(tensor)
    return inputs


async def stream(client: InferenceServerClient, model: str, prompt: str, num_tokens: int, started: float) -> Deliveries:
    """Take one answer; return when how many tokens came, in seconds since `started`.

    Raises:
        tritonclient.utils.InferenceServerException: the server refused or failed.
    """
    values = {
        "text_input": prompt,
        "max_tokens": num_tokens,
        "min_tokens": num_tokens,
        "stream": True,
        "return_num_output_tokens": True,
    }

    async def requests() -> AsyncIterator[dict[str, object]]:
        yield {"model_name": model, "inputs": input_tensors(values), "enable_empty_final_response": True}

    deliveries: Deliveries = []
    async for result, error in client.stream_infer(requests()):
        if error is not None:
            raise error
        counts = result.as_numpy("num_output_tokens")
        if counts is not None:
            deliveries.append((time.perf_counter() - started, int(counts[0, 0])))
    return deliveries


async def run(url: str, model: str, prompts: list[str], num_tokens: int) -> list[Deliveries]:
    """Send all prompts at once and take their answers."""
    from tritonclient.grpc.aio import InferenceServerClient

    async with InferenceServerClient(url) as client:
        await client.is_server_ready()
        started = time.perf_counter()
        answers = (stream(client, model, prompt, num_tokens, started) for prompt in prompts)
        return list(await asyncio.gather(*answers))


def main() -> None:
    url, model = sys.argv[1:]

    def answer(question: dict[str, Any]) -> dict[str, object]:
        return {"streams": asyncio.run(run(url, model, question["prompt_texts"], question["num_tokens"]))}

    worker.answer_questions({}, answer)


if __name__ == "__main__":
    main()
