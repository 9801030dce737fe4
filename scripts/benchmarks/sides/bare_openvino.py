"""The bare side: the OpenVINO pipeline that the served model uses, stepped by a loop that does nothing else.

    python -m scripts.benchmarks.sides.bare_openvino SERVICE_JSON

It is built by the runtime's own code from the served model's `service.json`, so every setting is the same.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalellm_trt.runtime import settings as service_settings
from scalellm_trt.runtime.engine_api import SamplingParams
from scalellm_trt.runtime.engine_openvino import OpenVinoPipeline
from scripts.benchmarks.sides import worker

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(pipeline: OpenVinoPipeline, prompts: Sequence[Sequence[int]], sampling: SamplingParams) -> dict[str, object]:
    """Generate for all prompts at once; return each stream's deliveries as (seconds, tokens)."""
    started = time.perf_counter()
    sequences = [pipeline.add(prompt, sampling, 0) for prompt in prompts]
    streams: list[list[tuple[float, int]]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    num_steps = 0
    while live:
        pipeline.step()
        now = time.perf_counter() - started
        num_steps += 1
        going_on = []
        for index in live:
            ids, _, finish_reason = sequences[index].read()
            if ids:
                streams[index].append((now, len(ids)))
            if finish_reason is None:
                going_on.append(index)
        live = going_on
    return {"streams": streams, "steps": num_steps}


def main() -> None:
    path = Path(sys.argv[1])
    settings = service_settings.read(path)
    pipeline = OpenVinoPipeline(settings, path.parent / settings.engine_directory)

    def answer(question: dict[str, Any]) -> dict[str, object]:
        num_tokens = question["num_tokens"]
        # All tokens are asked for, whatever the model would like: min_tokens keeps the end token away.
        sampling = SamplingParams(
            max_tokens=num_tokens, min_tokens=num_tokens, stop_token_ids=frozenset(settings.eos_token_ids)
        )
        return run(pipeline, question["prompt_ids"], sampling)

    worker.answer_questions({"kv_cache_precision": settings.kv_cache_precision}, answer)


if __name__ == "__main__":
    main()
