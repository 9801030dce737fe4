"""The llama.cpp side: a batched greedy decode over its C API, on the GGUF file that the served model was made from.

    PYTHON_WITH_LLAMA_CPP -m scripts.benchmarks.sides.llama_cpp_decode GGUF NUM_THREADS

All streams advance together, one token each per `llama_decode`, as `llama-batched-bench` does; the keys and values are
16-bit, everything else is the library's default. Needs llama_cpp and numpy, nothing of this package.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import llama_cpp  # type: ignore[import-not-found]
import numpy as np

from scripts.benchmarks.sides import worker


class Decoder:
    """A context for a fixed number of streams."""

    def __init__(self, model: Any, num_streams: int, num_tokens: int, num_threads: int) -> None:  # noqa: ANN401
        """Make room for `num_streams` streams of at most `num_tokens` tokens, prompt included."""
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = num_streams * -(-num_tokens // 256) * 256
        params.n_batch = max(512, num_streams)
        params.n_seq_max = num_streams
        params.n_threads = params.n_threads_batch = num_threads
        self._context = llama_cpp.llama_init_from_model(model, params)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)

    def close(self) -> None:
        """Free the C side."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)

    def step(self, tokens: list[tuple[int, int, int]], streams: list[int]) -> list[int]:
        """Process `tokens`, (stream, position, id) each; return the most probable next id of each of `streams`.

        The last token of each of `streams` must be among `tokens`.
        """
        batch = self._batch
        last = {stream: index for index, (stream, _, _) in enumerate(tokens)}
        batch.n_tokens = len(tokens)
        for index, (stream, position, token) in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = stream
            batch.logits[index] = stream in streams and last[stream] == index
        if llama_cpp.llama_decode(self._context, batch) != 0:
            raise RuntimeError("llama_decode failed")
        return [self._best(last[stream]) for stream in streams]

    def _best(self, index: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self._context, index)
        address = ctypes.addressof(logits.contents)
        row = np.frombuffer((ctypes.c_float * self._vocab_size).from_address(address), dtype=np.float32)
        return int(row.argmax())


def run(decoder: Decoder, prompts: list[list[int]], num_tokens: int) -> list[list[tuple[float, int]]]:
    """Generate for all prompts at once; return each stream's deliveries as (seconds, tokens)."""
    started = time.perf_counter()
    streams = list(range(len(prompts)))
    deliveries: list[list[tuple[float, int]]] = [[] for _ in prompts]
    newest: list[int] = []
    per_step = max(1, 512 // len(prompts[0]))
    for first in range(0, len(prompts), per_step):
        group = streams[first : first + per_step]
        tokens = [(index, position, token) for index in group for position, token in enumerate(prompts[index])]
        newest += decoder.step(tokens, group)
        now = time.perf_counter() - started
        for index in group:
            deliveries[index].append((now, 1))
    for number in range(num_tokens - 1):
        tokens = [(index, len(prompts[index]) + number, newest[index]) for index in streams]
        newest = decoder.step(tokens, streams)
        now = time.perf_counter() - started
        for index in streams:
            deliveries[index].append((now, 1))
    return deliveries


def main() -> None:
    path, num_threads = sys.argv[1], int(sys.argv[2])
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        sys.exit(f"{path} cannot be loaded")

    def answer(question: dict[str, Any]) -> dict[str, object]:
        prompts, num_tokens = question["prompt_ids"], question["num_tokens"]
        decoder = Decoder(model, len(prompts), max(map(len, prompts)) + num_tokens, num_threads)
        try:
            return {"streams": run(decoder, prompts, num_tokens)}
        finally:
            decoder.close()

    system = llama_cpp.llama_print_system_info().decode()
    worker.answer_questions({"version": llama_cpp.__version__, "system": system}, answer)


if __name__ == "__main__":
    main()
