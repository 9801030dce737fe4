"""Logits in, the next token out: penalties, forbidden tokens, then greedy or random choice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .engine_api import SamplingParams

_CUTS: Final = (-8.0, -16.0)
"""Tokens this far below the best one (in units of temperature) are looked at only if those above are not enough."""


_LEAST_TEMPERATURE: Final = float(np.finfo(np.float32).tiny)


class Chooser:
    """Chooses the tokens of one sequence; its random numbers depend on nothing but `seed` and how many were drawn."""

    def __init__(self, sampling: SamplingParams, seed: int) -> None:
        """Prepare for a sequence."""
        self._sampling = sampling
        self._random = None if sampling.temperature is None else np.random.Generator(np.random.PCG64(seed))
        self._bias_ids = np.array([token for token, _ in sampling.token_bias], np.int64)
        self._bias = np.array([value for _, value in sampling.token_bias], np.float32)
        self._changes_logits = bool(sampling.token_bias) or (
            (sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty) != (1.0, 0.0, 0.0)
        )

    def choose(
        self, logits: NDArray[np.float32], best: int, ids: NDArray[np.int64], num_prompt: int
    ) -> tuple[int, float | None]:
        """Return the next token and, if asked for, the logarithm of its probability before any change.

        Args:
            logits: (vocab_size,), left as they are.
            best: index of the highest logit.
            ids: (length,) prompt and answer so far.
            num_prompt: how many of `ids` are the prompt.
        """
        forbidden = set(self._forbidden(ids, num_prompt))
        if not self._changes_logits and self._random is None and best not in forbidden:
            token = best  # what is forbidden changes nothing as long as it is not the best
        else:
            changed = self._changed(logits, ids, num_prompt)
            if forbidden:
                changed[list(forbidden)] = -np.inf
            token = int(changed.argmax()) if self._random is None else self._sample(changed, self._random.random())
        return token, log_probability(logits, token, best) if self._sampling.log_probs else None

    def _forbidden(self, ids: NDArray[np.int64], num_prompt: int) -> Iterator[int]:
        """Yield tokens that must not come next: ends that come too early, and the last tokens of bad words."""
        sampling = self._sampling
        if len(ids) - num_prompt < sampling.min_tokens:
            yield from sampling.stop_token_ids
        for word in sampling.bad_words:
            begin = len(word) - 1
            if not begin or (begin <= len(ids) and tuple(ids[-begin:].tolist()) == word[:-1]):
                yield word[-1]

    def _changed(self, logits: NDArray[np.float32], ids: NDArray[np.int64], num_prompt: int) -> NDArray[np.float32]:
        """Return a copy of `logits` with biases and penalties as `SamplingParams` describes them."""
        sampling, changed = self._sampling, logits.copy()
        np.add.at(changed, self._bias_ids, self._bias)
        if sampling.repetition_penalty != 1.0:
            seen = np.unique(ids)
            values, penalty = changed[seen], np.float32(sampling.repetition_penalty)
            changed[seen] = np.where(values > 0, values / penalty, values * penalty)
        if sampling.presence_penalty or sampling.frequency_penalty:
            made, counts = np.unique(ids[num_prompt:], return_counts=True)
            changed[made] -= np.float32(sampling.presence_penalty)
            changed[made] -= np.float32(sampling.frequency_penalty) * counts.astype(np.float32)
        return changed

    def _sample(self, logits: NDArray[np.float32], draw: float) -> int:
        """Return the token at which the summed probabilities pass `draw` (0 <= draw < 1)."""
        assert self._sampling.temperature is not None
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to minus infinity
            scaled = (logits - logits.max()) / np.float32(max(self._sampling.temperature, _LEAST_TEMPERATURE))
        weights = np.exp(scaled)
        top_k, top_p = self._sampling.top_k, self._sampling.top_p
        if top_k is None and top_p is None:
            sums = weights.cumsum(dtype=np.float64)
            return int(sums.searchsorted(draw * sums[-1], side="right"))
        ids = _likeliest(scaled, weights, top_k, top_p)
        sums = weights[ids].cumsum(dtype=np.float64)
        return int(ids[sums.searchsorted(draw * sums[-1], side="right")])


def _likeliest(
    scaled: NDArray[np.float32], weights: NDArray[np.float32], top_k: int | None, top_p: float | None
) -> NDArray[np.int64]:
    """Return the tokens to sample from, the likeliest first: the best `top_k`, of these the fewest that reach `top_p`.

    `top_p` is a share of what `top_k` has left, as in TensorRT-LLM and transformers. Sorting all of a vocabulary takes
    milliseconds, so only the tokens near the best are sorted where they are enough.
    """
    ids = np.arange(len(scaled))
    for cut in _CUTS:
        near = np.flatnonzero(scaled >= cut)
        if len(near) >= top_k if top_k is not None else weights[near].sum() >= (top_p or 1.0) * weights.sum():
            ids = near
            break
    ids = ids[np.argsort(-scaled[ids], kind="stable")][:top_k]
    if top_p is None:
        return ids
    sums = weights[ids].cumsum(dtype=np.float64)
    total = sums[-1] if top_k is not None else weights.sum(dtype=np.float64)
    return ids[: int(sums.searchsorted(top_p * total)) + 1]


def log_probability(logits: NDArray[np.float32], token: int, best: int) -> float:
    """Return the natural logarithm of the probability of `token` under `logits` (vocab_size,)."""
    highest = logits[best]
    return float(logits[token] - highest - np.log(np.exp(logits - highest).sum(dtype=np.float64)))
