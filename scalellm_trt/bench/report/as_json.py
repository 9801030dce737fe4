"""A report as JSON: figures with their intervals, formulas, doubts and economics, for programs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from scalellm_trt.bench import comparison, comparison_table, metrics, statistics

if TYPE_CHECKING:
    from scalellm_trt.bench.report.content import Content
    from scalellm_trt.bench.summary import Summary
    from scalellm_trt.economics import ApiPrice
    from scalellm_trt.economics.standing import Standing

SCHEMA = 1


def text(content: Content) -> str:
    """Return the whole text."""
    return json.dumps(as_json(content), indent=1, allow_nan=False) + "\n"


def as_json(content: Content) -> dict[str, Any]:
    """Return the whole report; lengths and names as in `metrics`, units beside formulas."""
    run = content.run
    return {
        "schema": SCHEMA,
        "started": run.started,
        "command": run.command,
        "is_partial": run.is_partial,
        "environment": dict(run.environment),
        "targets": [dataclasses.asdict(target) for target in run.targets],
        "workloads": [dataclasses.asdict(workload) for workload in run.workloads],
        "doubts": [dataclasses.asdict(doubt) for doubt in content.doubts],
        "slo": dataclasses.asdict(content.slo),
        "confidence": statistics.CONFIDENCE,
        "metrics": {
            each.name: {"title": each.title, "unit": each.unit, "formula": each.formula}
            for each in (*metrics.PER_REQUEST, *metrics.AGGREGATES)
        },
        "rows": [_row(content, each) for each in content.summaries],
        "comparison": [comparison_table.as_json(each) for each in comparison.within(run, content.records)],
        "economics": [standing_json(each, content.api) for each in content.standings],
    }


def standing_json(each: Standing, api: ApiPrice | None) -> dict[str, Any]:
    """Return a score with its price, its costs, and the break-even where an API's price is known."""
    score, price = each.score, each.score.price
    broken = None if api is None else each.break_even(api)
    return {
        "source": each.source,
        "basis": each.basis,
        "load": each.load,
        "latency_name": each.latency_name,
        "latency_s": score.latency_s,
        "threshold_s": score.threshold_s,
        "tpot_name": each.tpot_name,
        "tpot_ms": score.tpot_ms,
        "tpot_limit_ms": score.tpot_limit_ms,
        "limits_judged": list(score.limits),
        "meets_threshold": score.meets_threshold,
        "num_services": score.num_services,
        "num_cards": score.num_cards,
        "prompt_tokens": score.prompt_tokens,
        "score": score.value,
        "latency_price": score.latency_price,
        "price": {
            "gpu": price.gpu,
            "usd_per_hour": price.usd_per_hour,
            "provider": price.provider,
            "date": price.origin.date.isoformat(),
            "source": price.origin.source,
        },
        "rate": None if each.rate is None else dataclasses.asdict(each.rate),
        "usd_per_million_tokens": None if each.cost is None else dataclasses.asdict(each.cost),
        "break_even": None if broken is None else dataclasses.asdict(broken),
    }


def _row(content: Content, each: Summary) -> dict[str, Any]:
    return {
        "target": content.run.targets[each.target].name,
        "workload": content.run.workloads[each.workload].name,
        "load": dataclasses.asdict(each.load),
        "outcome": each.outcome,
        "is_complete": each.is_complete,
        "duration_s": each.duration_s,
        "num_rounds": len(each.cells),
        "num_requests": each.num_requests,
        "num_good": each.num_good,
        "num_cancelled": each.num_cancelled,
        "errors": dict(each.errors),
        "share_in_time": each.share_in_time,
        "limit_s": each.limit_s,
        "request_throughput": dataclasses.asdict(each.request_throughput),
        "output_token_throughput": dataclasses.asdict(each.output_token_throughput),
        "input_token_throughput": dataclasses.asdict(each.input_token_throughput),
        "goodput": None if each.goodput is None else dataclasses.asdict(each.goodput),
        **{
            name: {
                **{key: value for key, value in dataclasses.asdict(found).items() if key != "percentiles"},
                **{f"p{percent}": dataclasses.asdict(interval) for percent, interval in found.percentiles.items()},
            }
            for name, found in each.distributions.items()
        },
    }
