"""Speed of a planned service: first token, inter-token latency, throughput, and what a prefill does to others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import memory
from scalellm_trt.predict.cards import constants_of
from scalellm_trt.predict.roofline import PREFILL_OVERHEAD_S, Format, Shape, decode_step, prefill

if TYPE_CHECKING:
    from scalellm_trt.facts import Hardware, KvCacheSupport, WeightSupport
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.predict.cards import CardConstants

PROMPTS = (512, 1024, 2048, 4096)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HEAD_BYTES = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedInputs:
    """What decides the speed of a service.

    Attributes:
        services: copies on the card; loaded together they share it.
        concurrency: requests of (prompt, max_tokens) that one service runs at once.
        prompt: tokens of the stated request; `max_tokens` those of its answer.
    """

    spec: ModelSpec
    dtype: str
    weights: WeightSupport
    group_size: int | None
    kv: KvCacheSupport
    hardware: Hardware
    tp_size: int
    services: int
    max_input_len: int
    max_num_tokens: int
    is_chunked: bool
    concurrency: int
    prompt: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Time to first token of one prompt on an idle service, and when every service gets one at once."""

    prompt: int
    ttft_ms: float
    ttft_all_services_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpeed:
    """A service whose batch holds this many requests of the stated length.

    Attributes:
        itl_ms: between two tokens of one request, nobody prefilling.
        tpot_ms: what a client sees under steady in-flight batching, where the prompts of the others are read between
            the tokens of a request; None for answers of one token.
        output_tokens_per_s: of the card, prompts included, under steady in-flight batching.
    """

    batch: int
    itl_ms: float
    tpot_ms: float | None
    output_tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """An estimate, with what it is made of.

    Attributes:
        stall_tokens: prompt tokens in the largest step; for `stall_ms` nobody else gets a token.
    """

    error_band: float
    is_calibrated: bool
    constants: CardConstants
    prompt: int
    max_tokens: int
    first_token: tuple[FirstToken, ...]
    batches: tuple[BatchSpeed, ...]
    stall_tokens: int
    stall_ms: float

    def batches_within(self, tpot_limit_ms: float | None) -> tuple[BatchSpeed, ...]:
        """Return the batches whose time per output token keeps a limit, all without one.

        Where none does, or nobody knows it, the smallest batch: never nothing. Larger batches are slower, so what is
        left out is at the end.
        """
        if tpot_limit_ms is None:
            return self.batches
        kept = tuple(each for each in self.batches if each.tpot_ms is not None and each.tpot_ms <= tpot_limit_ms)
        return kept or self.batches[:1]


def speed(inputs: SpeedInputs) -> Speed | None:
    """Predict a service; None where the card's constants are not known (processors).

    Services loaded together slice the card's time, so latencies are multiplied by their number while the throughput of
    the card stays. In-flight batching reads one prompt per request beside the steps of the others.
    """
    constants = constants_of(inputs.hardware, inputs.weights)
    if constants is None:
        return None
    prompt = min(inputs.prompt, inputs.max_input_len)
    lengths = sorted({prompt, *(size for size in PROMPTS if size < inputs.max_input_len), inputs.max_input_len})
    batches = sorted({*(size for size in BATCHES if size < inputs.concurrency), max(1, inputs.concurrency)})
    stall_tokens = min(inputs.max_num_tokens, inputs.max_input_len)
    return Speed(
        error_band=inputs.hardware.error_band,
        is_calibrated=inputs.hardware.is_calibrated and not constants.is_borrowed,
        constants=constants,
        prompt=prompt,
        max_tokens=inputs.max_tokens,
        first_token=tuple(_first_token(inputs, constants, length) for length in lengths),
        batches=tuple(_batch_speed(inputs, constants, prompt, batch) for batch in batches),
        stall_tokens=stall_tokens,
        stall_ms=1000 * _prefill_s(inputs, constants, stall_tokens),
    )


def ttft_s(inputs: SpeedInputs, constants: CardConstants, prompt: int) -> float:
    """Return the seconds to the first token of one prompt on an idle card; each further chunk costs its overhead."""
    chunks = -(-prompt // inputs.max_num_tokens) if inputs.is_chunked else 1
    return _prefill_s(inputs, constants, prompt) + (chunks - 1) * PREFILL_OVERHEAD_S


def shape_of(spec: ModelSpec) -> Shape:
    """Return the arithmetic of a model."""
    experts = spec.num_layers * spec.num_experts * 3 * spec.hidden_size * spec.intermediate_size
    return Shape(
        num_layers=spec.num_layers,
        hidden_size=spec.hidden_size,
        q_size=spec.q_size,
        kv_size=spec.kv_size,
        num_dense_parameters=spec.num_linear_parameters - experts,
        num_head_parameters=spec.vocab_size * spec.hidden_size,
        num_expert_parameters=experts,
        num_experts=spec.num_experts,
        num_experts_per_token=spec.num_experts_per_token,
    )


def format_of(inputs: SpeedInputs, constants: CardConstants) -> Format:
    """Return the bytes that a weight costs with its scales, and how the format multiplies."""
    one_rank = memory.Shard(tp_size=1, pp_size=1)
    groups = memory.tensor_groups(inputs.spec, inputs.weights, inputs.group_size, inputs.dtype, one_rank)
    linear = [group for group in groups if group.name in ("qkv", "dense", "mlp", "experts")]
    num_bytes = sum(group.num_bytes + group.num_scale_bytes for group in linear)
    return Format(
        width=constants.width,
        gemm="fp8" if constants.tflops_key == "fp8" else "weight_only",
        weight_bytes=num_bytes / sum(group.num_elements for group in linear),
        head_bytes=HEAD_BYTES,
        kv_bytes=inputs.kv.element_bytes,
    )


def _first_token(inputs: SpeedInputs, constants: CardConstants, prompt: int) -> FirstToken:
    alone = 1000 * ttft_s(inputs, constants, prompt)
    return FirstToken(prompt=prompt, ttft_ms=alone, ttft_all_services_ms=inputs.services * alone)


def _batch_speed(inputs: SpeedInputs, constants: CardConstants, prompt: int, batch: int) -> BatchSpeed:
    """Return the speed of one batch.

    In a round every request of the batch gets an answer, and its prompt is read once: round_s = batch * ttft_s +
    (max_tokens - 1) * step_s. One request spends its own ttft_s of that before its first token, the rest after it.

    Formula: tpot_ms = 1000 * services * (round_s - ttft_s) / (max_tokens - 1), ms
    """
    step_s = _step_s(inputs, constants, prompt + inputs.max_tokens / 2, batch)
    first_s, gaps = ttft_s(inputs, constants, prompt), inputs.max_tokens - 1
    round_s = batch * first_s + gaps * step_s
    return BatchSpeed(
        batch=batch,
        itl_ms=1000 * inputs.services * step_s,
        tpot_ms=1000 * inputs.services * ((batch - 1) * first_s / gaps + step_s) if gaps else None,
        output_tokens_per_s=batch * inputs.max_tokens / round_s,
    )


def _prefill_s(inputs: SpeedInputs, constants: CardConstants, tokens: int) -> float:
    one = prefill(
        shape_of(inputs.spec), format_of(inputs, constants), constants.rates, prompt=tokens, tp_size=inputs.tp_size
    )
    return one.seconds(constants.mfu, constants.mbu)


def _step_s(inputs: SpeedInputs, constants: CardConstants, context: float, batch: int) -> float:
    one = decode_step(
        shape_of(inputs.spec),
        format_of(inputs, constants),
        constants.rates,
        context=context,
        batch=batch,
        tp_size=inputs.tp_size,
    )
    return one.seconds(constants.mfu, constants.mbu)
