from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.plan import Outlook, outlook
from tests.fakes import planning
from tests.fakes.gpu_planning import RTX4090, make

if TYPE_CHECKING:
    from scalellm_trt.predict.service import Speed


def speed_of(found: Outlook) -> Speed:
    assert found.speed is not None
    return found.speed


def test_first_tokens_and_steps_are_those_of_the_published_estimate() -> None:
    speed = speed_of(outlook(make(), prompt=512, max_tokens=1024))
    assert {each.prompt for each in speed.first_token} == {512, 1024, 2048, 4000}
    assert speed.first_token[0].ttft_ms == pytest.approx(123, rel=0.03)
    assert speed.batches[0].itl_ms == pytest.approx(17.7, rel=0.03)
    assert speed.error_band == 0.3


def test_services_loaded_together_multiply_latencies_and_keep_the_throughput() -> None:
    sections: dict[str, Any] = {
        "hardware": "a100-80g",
        "quantization": {"weights": "int4_awq"},
        "serving": {"kv_cache_tokens": 20480},
    }
    one, three = (speed_of(outlook(make(services=n, **sections))) for n in (1, 3))
    for alone, together in zip(one.first_token, three.first_token, strict=True):
        assert together.ttft_ms == alone.ttft_ms
        assert together.ttft_all_services_ms == pytest.approx(3 * alone.ttft_ms)
    assert three.batches[0].itl_ms == pytest.approx(3 * one.batches[0].itl_ms)
    assert three.batches[-1].output_tokens_per_s == one.batches[-1].output_tokens_per_s


def test_a_prefill_of_everybody_else_stalls_a_stream_for_its_step() -> None:
    whole = speed_of(outlook(make()))
    chunked = speed_of(
        outlook(
            make(
                quantization={"weights": "fp8", "kv_cache_dtype": "fp8"},
                limits=RTX4090 | {"max_num_tokens": 2048},
                serving={"kv_cache_tokens": 20480, "chunked_context": True},
            )
        )
    )
    assert (whole.stall_tokens, chunked.stall_tokens) == (4000, 2048)
    assert whole.stall_ms == pytest.approx(whole.first_token[-1].ttft_ms)
    assert chunked.stall_ms == pytest.approx(311, rel=0.05)


def test_a_score_names_prompt_load_price_date_and_source() -> None:
    found = outlook(make(), ttft_limit_ms=1000)
    assert found.score is not None
    assert found.score.prompt_tokens == 512
    assert found.score.price.usd_per_hour == 0.34
    assert found.score.price.origin.date.year == 2026
    assert found.score.price.origin.source
    assert found.score.value == pytest.approx(1 / (found.score.latency_s * 0.34))
    missed = outlook(make(), ttft_limit_ms=100).score
    assert missed is not None
    assert missed.value == 0


def test_more_cards_cost_more() -> None:
    one, two = (outlook(make(serving={}, parallel={"tp_size": n})).score for n in (1, 2))
    assert one is not None
    assert two is not None
    assert two.usd_per_hour == 2 * one.usd_per_hour


def test_a_processor_has_a_pool_and_no_speed() -> None:
    found = outlook(planning.make())
    assert found.speed is None
    assert found.score is None
    assert found.pool.sequences == 4
    assert found.pool.bytes_per_token == 23_040


def test_stated_lengths_are_cut_to_what_the_plan_takes() -> None:
    found = outlook(make(), prompt=100_000, max_tokens=100_000)
    assert (found.prompt, found.max_tokens) == (4000, 96)
    assert found.pool.concurrency == 5


def test_a_token_waits_for_its_share_of_the_others_prompts() -> None:
    # 16 requests: 22.7 ms a step, and in 255 gaps 15 prompts of 123 ms.
    speed = speed_of(outlook(make(), prompt=512, max_tokens=256))
    first, alone, most = speed.first_token[0], speed.batches[0], speed.batches[-1]
    assert alone.tpot_ms == alone.itl_ms
    assert most.batch == 16
    assert most.tpot_ms == pytest.approx(most.itl_ms + 15 * first.ttft_ms / 255)
    # What a client sees makes the same throughput: 256 tokens in a first token and 255 gaps, sixteen at once.
    assert most.tpot_ms is not None
    assert most.output_tokens_per_s == pytest.approx(16 * 256 / (first.ttft_ms + 255 * most.tpot_ms) * 1000)
    assert speed_of(outlook(make(), max_tokens=1)).batches[-1].tpot_ms is None


def test_services_loaded_together_make_tokens_slower_for_all() -> None:
    sections: dict[str, Any] = {"hardware": "a100-80g", "quantization": {"weights": "int4_awq"}}
    limited = {**sections, "serving": {"kv_cache_tokens": 20480}}
    one, three = (speed_of(outlook(make(services=n, **limited))).batches[-1] for n in (1, 3))
    assert one.tpot_ms is not None
    assert three.tpot_ms == pytest.approx(3 * one.tpot_ms)


def test_a_limit_of_the_time_per_token_chooses_the_batch_that_tokens_are_counted_at() -> None:
    free, limited = outlook(make()), outlook(make(), tpot_limit_ms=25)
    speed = speed_of(limited)
    assert [each.batch for each in speed.batches_within(25)] == [1, 2, 4, 8]
    assert limited.score is not None
    assert limited.score.tpot_ms == speed.batches[3].tpot_ms
    assert limited.score.value > 0
    assert free.usd_per_million_tokens is not None
    assert limited.usd_per_million_tokens == pytest.approx(
        free.usd_per_million_tokens * speed.batches[-1].output_tokens_per_s / speed.batches[3].output_tokens_per_s
    )
    missed = outlook(make(), tpot_limit_ms=17).score
    assert missed is not None
    assert missed.tpot_ms == speed.batches[0].tpot_ms
    assert missed.value == 0
    nobody_knows = outlook(make(), max_tokens=1, tpot_limit_ms=1000).score
    assert nobody_knows is not None
    assert (nobody_knows.tpot_fault, nobody_knows.value) == ("TPOT not known", 0)
