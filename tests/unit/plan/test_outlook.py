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
