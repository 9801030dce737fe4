"""The served side's client: `tritonclient.grpc.aio`, one gRPC stream per request, in a process of its own.

python -m scripts.benchmarks.sides.grpc_client HOST:PORT MODEL
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from scripts.benchmarks.sides import streamed_answer, worker

if TYPE_CHECKING:
    from tritonclient.grpc.aio import InferenceServerClient

Deliveries = list[tuple[float, int]]


async def stream(client: InferenceServerClient, model: str, prompt: str, num_tokens: int, started: float) -> Deliveries:
    """Take one answer; return when how many tokens came, in seconds since `started`.

    Raises:
        tritonclient.utils.InferenceServerException: the server refused or failed.
    """
    inputs = streamed_answer.tensors(
        text_input=prompt,
        max_tokens=num_tokens,
        min_tokens=num_tokens,
        stream=True,
        return_num_output_tokens=True,
    )
    deliveries: Deliveries = []
    async for result in streamed_answer.responses(client, model, inputs):
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
