"""The best limits for a card: every candidate is planned, the ones that fit are ranked by one stated objective."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

from scalellm_trt.plan.outlook import outlook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.plan.changes import TryPlan
    from scalellm_trt.plan.outlook import Outlook
    from scalellm_trt.plan.types import Plan
    from scalellm_trt.recipe import Recipe, Slo

Objective = Literal["throughput", "sequences"]
BATCH_SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
# Below 1,024 rows a matrix multiplication reaches less of the peak (aiconfigurator: 0.66 at 256, 0.81 at 1,024).
STEP_TOKENS = (1024, 2048, 4096, 8192)
WORTH_IT = 0.01  # a larger step or batch must gain this share; else the smaller one, which stalls others shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """The limits that won, and what they won with.

    Attributes:
        objective: in words, with the request that it is about and the threshold that it keeps.
        num_tried: candidates; `num_fitting` of them fit and keep the threshold.
    """

    plan: Plan
    outlook: Outlook
    objective: str
    num_tried: int
    num_fitting: int

    def fragment(self) -> str:
        """Return the lines of a recipe that hold the suggestion, ready to paste."""
        limits, serving = self.plan.limits, self.plan.serving
        return "\n".join(
            [
                "limits:",
                f"  max_batch_size: {limits.max_batch_size}",
                f"  max_input_len: {limits.max_input_len}",
                f"  max_seq_len: {limits.max_seq_len}",
                f"  max_num_tokens: {limits.max_num_tokens}",
                "serving:",
                f"  batch_scheduler_policy: {serving.batch_scheduler_policy}",
                f"  kv_cache_reuse: {str(serving.kv_cache_reuse).lower()}",
                f"  chunked_context: {str(serving.chunked_context).lower()}",
                f"  kv_cache_tokens: {serving.kv_cache_tokens}",
            ]
        )


def suggest(
    recipe: Recipe, try_plan: TryPlan, *, objective: Objective, prompt: int, max_tokens: int
) -> Suggestion | None:
    """Search batch size, tokens of a step and chunking for the recipe's formats and lengths; None where nothing fits.

    throughput: the most output tokens per second for requests of (prompt, max_tokens), the time to first token within
    the recipe's `slo.ttft_ms` when every service gets a prompt at once, the time per token of the largest batch within
    `slo.tpot_ms`. sequences: the largest KV pool in sequences of max_seq_len, then the throughput. Between equals
    (within 1 %) the smaller step wins, then the smaller batch.
    """
    tried = 0
    best: tuple[float, Plan, Outlook] | None = None
    fitting = 0
    for candidate in _candidates(recipe):
        tried += 1
        plan = try_plan(candidate)
        if plan is None or not plan.fits:
            continue
        seen = outlook(
            plan,
            prompt=prompt,
            max_tokens=max_tokens,
            ttft_limit_ms=recipe.slo.ttft_ms,
            tpot_limit_ms=recipe.slo.tpot_ms,
        )
        if not _keeps_limits(seen, recipe.slo):
            continue
        fitting += 1
        value = _value(plan, seen, objective)
        if best is None or value > best[0] * (1 + WORTH_IT):
            best = (value, plan, seen)
    if best is None:
        return None
    _, plan, seen = best
    words = _words(objective, seen, recipe.slo)
    return Suggestion(plan=plan, outlook=seen, objective=words, num_tried=tried, num_fitting=fitting)


def _candidates(recipe: Recipe) -> Iterator[Recipe]:
    """Yield the recipes to try, smaller steps and batches first; without chunks a step holds the longest prompt."""
    longest = recipe.limits.max_input_len or recipe.limits.max_seq_len - 1
    steps = [(True, size) for size in STEP_TOKENS if size < longest]
    steps.append((False, longest))
    for (is_chunked, step), batch in product(steps, BATCH_SIZES):
        limits = {"max_batch_size": batch, "max_num_tokens": max(step, batch)}
        serving = {"chunked_context": is_chunked, "kv_cache_tokens": None}
        yield recipe.model_copy(
            update={
                "limits": recipe.limits.model_copy(update=limits),
                "serving": recipe.serving.model_copy(update=serving),
            }
        )


def _keeps_limits(seen: Outlook, slo: Slo) -> bool:
    """Whether the stated request keeps the limits, its tokens in a full batch; an answer of one token has no TPOT."""
    if seen.speed is None:
        return True
    first = next(each for each in seen.speed.first_token if each.prompt == seen.prompt)
    tpot_ms = seen.speed.batches[-1].tpot_ms
    return (slo.ttft_ms is None or first.ttft_all_services_ms <= slo.ttft_ms) and (
        slo.tpot_ms is None or tpot_ms is None or tpot_ms <= slo.tpot_ms
    )


def _value(plan: Plan, seen: Outlook, objective: Objective) -> float:
    throughput = seen.speed.batches[-1].output_tokens_per_s if seen.speed is not None else seen.pool.concurrency
    if objective == "throughput":
        return float(throughput)
    # Whole sequences first; the throughput only decides between equals.
    return plan.services * seen.pool.sequences + throughput / 1e6


def _words(objective: Objective, seen: Outlook, slo: Slo) -> str:
    request = f"{seen.prompt} prompt and {seen.max_tokens} answer tokens"
    if objective == "sequences":
        return "most sequences of max_seq_len in the KV pool; between equals the smaller step, then the smaller batch"
    if seen.speed is None:
        return f"most requests of {request} at once (no speed is predicted for this hardware)"
    named = (("TTFT", slo.ttft_ms), ("TPOT", slo.tpot_ms))
    kept = " and ".join(f"{name} within {limit:g} ms" for name, limit in named if limit is not None)
    limit = kept or "no threshold (slo.ttft_ms is not set)"
    return f"most output tokens per second for requests of {request}, {limit}; between equals the smaller step"
