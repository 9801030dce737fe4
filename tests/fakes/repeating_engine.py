"""Stands for an engine inside a served model: the answer is the prompt again, 1 to 4 tokens at a time, then the end.

It lies beside the real modules as `engine_openvino.py`, so that everything around it is what is served: requests, stop
words, spacing, responses.
"""

from __future__ import annotations

import importlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

UNSUPPORTED_INPUTS: Mapping[str, str] = {}
NUM_THREADS = 8


def create(settings: Any, directory: Path, *, on_step: Callable[[], None], log: Callable[[str], None]) -> Engine:
    return Engine(settings, on_step)


class Generation:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Engine:
    def __init__(self, settings: Any, on_step: Callable[[], None]) -> None:
        self._settings, self._on_step = settings, on_step
        self._pool = ThreadPoolExecutor(NUM_THREADS)
        self._chunk = importlib.import_module(".engine_api", __package__).Chunk

    def submit(self, request: Any, sink: Callable[[Any], bool]) -> Generation:
        generation = Generation()
        self._pool.submit(self._answer, request, sink, generation)
        return generation

    def close(self) -> None:
        self._pool.shutdown()

    def _answer(self, request: Any, sink: Callable[[Any], bool], generation: Generation) -> None:
        sampling = request.sampling
        ids = (*request.input_ids, self._settings.eos_token_ids[0])[: sampling.max_tokens]
        reason = "stop" if len(ids) > len(request.input_ids) else "length"
        sizes = random.Random(sampling.seed)
        start = 0
        while start < len(ids) and not generation.is_cancelled:
            end = start + sizes.randint(1, 4)
            is_last = end >= len(ids)
            piece = ids[start:end]
            chunk = self._chunk(
                sequence_index=0,
                token_ids=piece,
                log_probs=(-0.5,) * len(piece) if sampling.log_probs else (),
                finish_reason=reason if is_last else None,
            )
            if not sink(chunk):
                return
            self._on_step()
            start = end
