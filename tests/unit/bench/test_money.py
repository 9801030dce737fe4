from __future__ import annotations

import dataclasses

import pytest

from scalellm_trt.bench import money, summary
from scalellm_trt.bench.metrics import Slo
from scalellm_trt.economics import ApiPrice, price_of, prices
from scalellm_trt.economics.standing import cheapest_by_token, cheapest_to_hold
from tests.fakes.bench_runs import cell, record, run, target

PRICE = price_of("rtx4090")
assert PRICE is not None
DESCRIBED = run([cell(0, 8)], [target(hardware="rtx4090")])
# Two requests of 10 + 3 tokens in ten seconds; 1 s of 1.5 s passes before the first token.
(ROW,) = summary.summarize(DESCRIBED, [record(index=0), record(index=1)], Slo())


def test_a_row_of_a_run_has_its_score_and_the_cost_of_its_tokens() -> None:
    (found,) = money.standings(DESCRIBED, [ROW], prices())
    assert (found.gpu, found.basis, found.load, found.source) == ("rtx4090", "measured", "8 at once", "gateway")
    assert found.score.value == pytest.approx(1 / (1.0 * 0.34))
    assert found.score.prompt_tokens == 10
    assert found.rate is not None
    assert found.rate.input_share == pytest.approx(2 / 3)
    assert found.cost is not None
    assert found.cost.output_usd == pytest.approx(0.34 / 3 / (3600 * 0.6) * 1e6)
    assert found.cost.input_usd == pytest.approx(0.34 * 2 / 3 / (3600 * 2) * 1e6)


def test_services_that_were_loaded_together_are_scored_together() -> None:
    assert PRICE is not None
    found = money.standing(DESCRIBED, ROW, PRICE, source="r", num_services=3, num_cards=2, percent=99, threshold_s=0.5)
    assert found is not None
    assert (found.source, found.latency_name) == ("r", "p99 TTFT")
    assert found.score.usd_per_hour == pytest.approx(0.68)
    assert found.score.value == 0
    assert found.rate is not None
    assert found.rate.output_tokens_per_s == pytest.approx(1.8)


def test_what_has_no_first_token_or_no_price_has_no_score() -> None:
    assert money.standings(run([cell()], [target()]), [ROW], prices()) == ()
    assert PRICE is not None
    late = dataclasses.replace(ROW, outcome="timeout")
    assert money.standing(DESCRIBED, late, PRICE, source="") is None
    whole = dataclasses.replace(ROW, distributions={"e2e_latency_ms": ROW.distributions["e2e_latency_ms"]})
    assert money.standing(DESCRIBED, whole, PRICE, source="") is None


def test_the_cheapest_card_is_one_within_the_threshold() -> None:
    cards = {name: price_of(name) for name in ("rtx4090", "l4", "a100-80g")}
    rows = []
    for (_, price), threshold in zip(cards.items(), (0.5, 2.0, 2.0), strict=True):
        assert price is not None
        found = money.standing(DESCRIBED, ROW, price, source="r", threshold_s=threshold)
        assert found is not None
        rows.append(found)
    hold, token = cheapest_to_hold(rows), cheapest_by_token(rows)
    assert hold is not None
    assert token is not None
    assert (hold.gpu, token.gpu) == ("l4", "l4")
    assert cheapest_to_hold(rows[:1]) is None
    said = money.verdicts(rows, None)
    assert said[0] == "Cheapest by the hour within its own limits: r on l4, 8 at once (measured), 0.44 USD/h."
    assert money.verdicts(rows[1:], None)[0].startswith("Cheapest by the hour within 2 s: r on l4, 8 at once")
    assert money.verdicts(rows[:1], None) == ("None is within 0.5 s.",)


def test_a_card_within_the_threshold_whose_tokens_are_slow_is_not_the_cheapest() -> None:
    # The same run, 250 ms a token: what it costs decides only among cards that keep both limits.
    rows = []
    for name, tpot_limit_ms in (("rtx4090", 249.9), ("l4", 250.0), ("a100-80g", 250.0)):
        price = price_of(name)
        assert price is not None
        found = money.standing(
            DESCRIBED, ROW, price, source="r", percent=95, threshold_s=1.0, tpot_limit_ms=tpot_limit_ms
        )
        assert found is not None
        assert found.tpot_name == "p95 TPOT"
        assert found.score.tpot_ms == pytest.approx(250)
        assert found.score.is_first_token_late is False
        rows.append(found)
    hold, token = cheapest_to_hold(rows), cheapest_by_token(rows)
    assert hold is not None
    assert token is not None
    assert (hold.gpu, token.gpu) == ("l4", "l4")
    table = money.score_table(rows)
    slow, kept, _ = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    assert (slow["TPOT, ms"], slow["score"]) == ("250", "0 (TPOT above 249.9 ms)")
    assert (kept["TPOT, ms"], kept["score"]) == ("250", "2.273")
    assert (
        "Limits judged: TTFT 1 s, TPOT 249.9 ms (r on rtx4090); TTFT 1 s, TPOT 250 ms (r on l4, r on a100-80g); "
        "0 also where TPOT is not known. Time per output token: p95 TPOT. Prices:"
    ) in table.note
    said = money.verdicts(rows[1:], None)
    assert said[0].startswith("Cheapest by the hour within TTFT 1 s and TPOT 250 ms: r on l4,")
    assert money.verdicts(rows[:1], None) == ("None is within TTFT 1 s and TPOT 249.9 ms.",)


def test_the_percentile_that_is_asked_for_is_judged_of_both_latencies() -> None:
    # 100 and 300 ms a token: 200 in the median, 280 at the 90th percentile.
    assert PRICE is not None
    records = [record((1.0, 1.1, 1.2)), record((1.0, 1.3, 1.6), index=1)]
    (row,) = summary.summarize(DESCRIBED, records, Slo())
    half, most = (
        money.standing(DESCRIBED, row, PRICE, source="", percent=percent, tpot_limit_ms=250) for percent in (50, 90)
    )
    assert half is not None
    assert most is not None
    assert half.score.tpot_ms == pytest.approx(200)
    assert half.score.value == pytest.approx(1 / 0.34)
    assert most.score.tpot_ms == pytest.approx(280)
    assert most.score.value == 0


def test_answers_of_one_token_say_that_their_time_per_token_is_not_known() -> None:
    assert PRICE is not None
    (row,) = summary.summarize(DESCRIBED, [record((1.0,))], Slo())
    found = money.standing(DESCRIBED, row, PRICE, source="", tpot_limit_ms=1000.0)
    assert found is not None
    assert cheapest_to_hold([found]) is cheapest_by_token([found]) is None
    table = money.score_table([found])
    shown = dict(zip(table.columns, table.rows[0], strict=True))
    assert (shown["TPOT, ms"], shown["score"]) == ("–", "0 (TPOT not known)")
    assert money.verdicts([found], None) == ("None is within TPOT 1000 ms.",)
    free = money.standing(DESCRIBED, row, PRICE, source="")
    assert free is not None
    assert free.score.value > 0


def test_a_reports_scores_are_judged_by_its_slo() -> None:
    (kept,) = money.standings(DESCRIBED, [ROW], prices(), Slo(ttft_ms=1000, tpot_ms=250, e2e_latency_ms=1))
    assert (kept.score.limits, kept.score.meets_threshold) == (("TTFT 1 s", "TPOT 250 ms"), True)
    (late,) = money.standings(DESCRIBED, [ROW], prices(), Slo(ttft_ms=999))
    assert (late.score.limits, late.score.value) == (("TTFT 0.999 s",), 0)
    (free,) = money.standings(DESCRIBED, [ROW], prices(), Slo())
    assert free.score.limits == ()


def test_tables_name_price_date_source_prompt_load_and_how_the_bill_is_split() -> None:
    rows = money.standings(DESCRIBED, [ROW], prices())
    score = money.score_table(rows)
    assert dict(zip(score.columns, score.rows[0], strict=True)) == {
        "what": "gateway",
        "card": "rtx4090",
        "basis": "measured",
        "load": "8 at once",
        "services": "1",
        "latency": "p50 TTFT",
        "s": "1",
        "prompt": "10",
        "USD/h": "0.34",
        "s × USD/h": "0.34",
        "score": "2.941",
    }
    assert "judged" not in score.note  # nothing was
    assert "rtx4090 0.34 USD/h, RunPod (community), 2026-03-10, deploybase" in score.note
    cost = money.cost_table(rows)
    assert cost.rows[0][-3:] == ("31.5", "52.5", "36.3")
    assert "sum of ttft / sum of e2e_latency" in cost.note


def test_break_even_is_told_in_hours_a_day_and_tokens_a_second() -> None:
    rows = money.standings(DESCRIBED, [ROW], prices())
    (cheap,) = money.verdicts(rows, ApiPrice(input_usd=50, output_usd=200))
    assert "gateway on rtx4090, 8 at once (measured), is cheaper than an API at 50 / 200 USD" in cheap
    # 24 x 0.34 USD a day against 3600 x (2 x 50 + 0.6 x 200) / 1e6 = 0.792 USD an hour.
    assert "from 10.3 hours a day at this load on, or 0.258 output tokens/s" in cheap
    (dear,) = money.verdicts(rows, ApiPrice(input_usd=0.1, output_usd=0.2))
    assert "never cheaper" in dear
