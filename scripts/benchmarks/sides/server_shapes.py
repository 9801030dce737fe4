"""What ScaleLLM published of its two shapes of a model over eight GPUs, as a formula for each; an estimate in between.

Published: below 64 concurrent requests one replica with tensor parallelism over 8 GPUs, 185-5,200 tokens/s; from 64 on
8 replicas without, 146-17,000 tokens/s. How a server gets from the lower figure to the upper one was not published.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One server of a group.

    Attributes:
        alone_tokens_per_s: with one request.
        full_tokens_per_s: with `full_requests`.
        first_token_s: to read a prompt, during which the next one waits.
    """

    alone_tokens_per_s: float
    full_tokens_per_s: float
    full_requests: int
    first_token_s: float

    @property
    def slowdown(self) -> float:
        """How much each request more slows all others: the `a` of `tokens_per_s`."""
        linear = self.alone_tokens_per_s * self.full_requests
        return (linear / self.full_tokens_per_s - 1) / (self.full_requests - 1)

    def tokens_per_s(self, num_requests: int) -> float:
        """Return the tokens per second of the server with that many requests.

        Formula: n * t / (1 + a * (n - 1)), t the speed alone, `a` such that the full server has its published speed:
        a step's time grows by the same amount with each request, as it does where weights are read once for all of them
        and each request adds its own arithmetic and KV cache.
        """
        return num_requests * self.alone_tokens_per_s / (1 + self.slowdown * (num_requests - 1))


NUM_REPLICAS = 8
TENSOR_PARALLEL = Shape(alone_tokens_per_s=185, full_tokens_per_s=5200, full_requests=63, first_token_s=0.011)
"""5,200 tokens/s at 63, the last that it is given. First token: `scalellm-trt plan recipes/mixtral-8x7b-h100-tp.yaml`,
512 prompt tokens, an estimate; that predictor, which knows nothing of these figures, says 190 and 6,431 tokens/s."""


def replica(full_concurrency: int) -> Shape:
    """Return one of the eight; all reach 17,000 tokens/s at `full_concurrency`, which was not published.

    First token: the same recipe with `tp_size: 1`, an estimate; it says 151 tokens/s for one request.
    """
    return Shape(
        alone_tokens_per_s=146,
        full_tokens_per_s=17000 / NUM_REPLICAS,
        full_requests=full_concurrency // NUM_REPLICAS,
        first_token_s=0.023,
    )
