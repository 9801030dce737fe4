"""Requests as a crowd sends them, from a seeded generator: good ones, ones that are given up, and bad ones."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from scripts.benchmarks.sides.streamed_answer import Tensors, tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.runtime.settings import ServiceSettings

Kind = Literal["streamed", "whole", "by ids", "several", "cancelled", "bad"]
WEIGHTS: dict[Kind, int] = {"streamed": 40, "whole": 10, "by ids": 10, "several": 5, "cancelled": 20, "bad": 15}


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomRequest:
    """What to send and what to expect.

    Attributes:
        max_tokens: of each sequence.
        num_sequences: each ends with a finish reason of its own.
        refusal: a part of the error that must come; None where an answer must come.
        cancel_after: give up after this many responses; None takes the whole answer.
    """

    kind: Kind
    inputs: Tensors
    max_tokens: int = 1
    num_sequences: int = 1
    refusal: str | None = None
    cancel_after: int | None = None


class Crowd:
    """Makes requests within the limits of a service; the same seed makes the same ones in the same order."""

    def __init__(self, seed: int, settings: ServiceSettings, words: Sequence[str]) -> None:
        """Build prompts out of `words`, each of which is a token or two."""
        self._random = random.Random(seed)
        self._settings = settings
        self._words = words

    def next(self) -> RandomRequest:
        """Return the next request."""
        kinds = list(WEIGHTS)
        kind = self._random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        if kind == "bad":
            return self._bad()
        # Mostly short, as a logarithmic draw has it, now and then a tenth of the longest.
        max_tokens = self._log_uniform(1, 96)
        num_sequences = self._random.choice((2, 3)) if kind == "several" else 1
        inputs = {"max_tokens": max_tokens, "stream": kind in ("streamed", "cancelled"), **self._sampling()}
        inputs["return_num_output_tokens"] = True
        if kind == "by ids":
            inputs["input_ids"] = self._ids(self._log_uniform(1, self._longest_prompt()))
            inputs["stream"] = self._random.random() < 0.5
        else:
            inputs["text_input"] = self._text(self._log_uniform(1, self._longest_prompt() // 2))
        if kind == "several":
            inputs["num_return_sequences"] = num_sequences
        return RandomRequest(
            kind=kind,
            inputs=tensors(**inputs),
            max_tokens=max_tokens,
            num_sequences=num_sequences,
            cancel_after=self._random.choice((0, 1, 2, 5)) if kind == "cancelled" else None,
        )

    def _sampling(self) -> dict[str, object]:
        """Return how to choose tokens: greedy half of the time."""
        inputs: dict[str, object] = {}
        if self._random.random() < 0.5:
            inputs |= {"temperature": self._random.uniform(0.1, 1.5), "top_p": self._random.uniform(0.5, 1.0)}
            inputs |= {"top_k": self._random.randint(1, 100)}
            inputs |= {"seed": np.array([[self._random.getrandbits(64)]], dtype=np.uint64)}
        if self._random.random() < 0.2:
            inputs |= {"repetition_penalty": self._random.uniform(1.0, 1.3)}
        if self._random.random() < 0.2:
            inputs |= {"presence_penalty": self._random.uniform(-1, 1), "frequency_penalty": 0.5}
        if self._random.random() < 0.2:
            inputs |= {"bad_words": ["the", "of course"]}
        if self._random.random() < 0.2:
            inputs |= {"embedding_bias_words": ["and"], "embedding_bias_weights": [self._random.uniform(-5, 5)]}
        if self._random.random() < 0.2:
            inputs |= {"stop_words": ["the ", "\n", "zzz"]}
        if self._random.random() < 0.2:
            inputs |= {"return_log_probs": True}
        return inputs

    def _bad(self) -> RandomRequest:
        """Return a request that must be refused, with the word that the refusal must hold."""
        settings = self._settings
        good = {"text_input": self._text(5), "max_tokens": 4, "stream": self._random.random() < 0.5}
        changes: list[tuple[str, dict[str, object]]] = [
            ("max_tokens", {"max_tokens": 0}),
            ("max_tokens", {"max_tokens": settings.max_seq_len}),
            ("temperature", {"temperature": -1.0}),
            ("top_p", {"top_p": 1.5}),
            ("top_k", {"top_k": -1}),
            ("min_tokens", {"min_tokens": 5}),
            ("beam_width", {"beam_width": 4}),
            ("bad_words", {"bad_words": ["never"] * 100}),
            ("presence_penalty", {"presence_penalty": 3.0}),
            ("return_context_logits", {"return_context_logits": True}),
            ("repetition_penalty", {"repetition_penalty": 0.0}),
            ("num_return_sequences", {"num_return_sequences": settings.max_batch_size + 1}),
            ("input_ids", {"input_ids": [1, 2, 3]}),
            ("text_input", {"text_input": b"\xff\xfe"}),
            ("text_input", {"text_input": "word " * settings.max_seq_len}),
            ("no_such_input", {"no_such_input": 1}),
            ("max_tokens", {"max_tokens": 4.0}),
        ]
        refusal, change = self._random.choice(changes)
        return RandomRequest(kind="bad", inputs=tensors(**{**good, **change}), refusal=refusal)

    def _longest_prompt(self) -> int:
        return self._settings.max_input_len // 10

    def _log_uniform(self, low: int, high: int) -> int:
        return round(low * math.pow(high / low, self._random.random()))

    def _text(self, num_words: int) -> str:
        return " ".join(self._random.choices(self._words, k=num_words))

    def _ids(self, count: int) -> list[int]:
        return [self._random.randrange(self._settings.vocab_size) for _ in range(count)]
