"""The bare side: OpenVINO GenAI's continuous batching pipeline, stepped by a loop that does nothing else.

    python -m scripts.benchmarks.sides.bare_openvino SERVICE_JSON

It has the served model's engine files, limits, KV cache and compiler settings, read from its `service.json`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scalellm_trt.runtime import settings as service_settings
from scalellm_trt.runtime.engine_openvino import compile_properties
from scripts.benchmarks.sides import worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.runtime.settings import ServiceSettings


def make_pipeline(settings: ServiceSettings, directory: Path) -> Any:  # noqa: ANN401  the library has no types
    """Return the pipeline over the engine in `directory`."""
    import openvino_genai

    config = openvino_genai.SchedulerConfig()
    config.num_kv_blocks = settings.num_kv_blocks
    config.cache_size = 0
    config.max_num_seqs = settings.max_batch_size
    config.max_num_batched_tokens = settings.max_num_tokens
    config.dynamic_split_fuse = settings.chunked_context
    config.enable_prefix_caching = settings.kv_cache_reuse
    return openvino_genai.ContinuousBatchingPipeline(str(directory), config, "CPU", compile_properties(settings))


def greedy(num_tokens: int, eos_token_id: int) -> Any:  # noqa: ANN401
    """Return what asks for exactly `num_tokens` tokens."""
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = num_tokens
    config.set_eos_token_id(eos_token_id)
    config.ignore_eos = True
    return config


def run(pipeline: Any, prompts: Sequence[Sequence[int]], config: Any) -> dict[str, object]:  # noqa: ANN401
    """Generate for all prompts at once; return each stream's deliveries as (seconds, tokens)."""
    import openvino

    started = time.perf_counter()
    handles = [
        pipeline.add_request(index, openvino.Tensor(np.array([prompt], np.int64)), config)
        for index, prompt in enumerate(prompts)
    ]
    streams: list[list[tuple[float, int]]] = [[] for _ in prompts]
    num_steps = 0
    while pipeline.has_non_finished_requests():
        pipeline.step()
        now = time.perf_counter() - started
        num_steps += 1
        for handle, stream in zip(handles, streams, strict=True):
            while handle.can_read():
                stream += [(now, len(output.generated_ids)) for output in handle.read().values()]
    return {"streams": streams, "steps": num_steps}


def main() -> None:
    path = Path(sys.argv[1])
    settings = service_settings.read(path)
    pipeline = make_pipeline(settings, path.parent / settings.engine_directory)

    def answer(question: dict[str, Any]) -> dict[str, object]:
        return run(pipeline, question["prompt_ids"], greedy(question["num_tokens"], settings.eos_token_ids[0]))

    worker.answer_questions({"kv_cache_precision": settings.kv_cache_precision}, answer)


if __name__ == "__main__":
    main()
