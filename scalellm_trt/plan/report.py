"""Everything that is said about a plan, as JSON text for other programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from scalellm_trt.plan.slices import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.errors import Problem
    from scalellm_trt.plan.outlook import Outlook
    from scalellm_trt.plan.suggest import Suggestion
    from scalellm_trt.plan.types import Decision, Plan


def report_json(
    plan: Plan,
    outlook: Outlook,
    *,
    changes: Sequence[Decision] = (),
    problems: Sequence[Problem] = (),
    suggestion: Suggestion | None = None,
    measured: Mapping[str, object] | None = None,
) -> str:
    """Return the plan's own JSON with the verdict, what it means for users, changes for another card, a suggestion.

    Args:
        plan: what was decided.
        outlook: its speed and score.
        changes: made for another card.
        problems: why it does not fit.
        suggestion: better limits, where they were asked for.
        measured: what a server took when it last ran; None where none did.
    """
    body = json.loads(to_json(plan))
    body["fits"] = plan.fits
    body["problems"] = [{"key": p.key, "message": p.message, "hint": p.hint} for p in problems]
    body["changes"] = [asdict(change) for change in changes]
    body["outlook"] = _outlook(outlook)
    body["suggestion"] = None if suggestion is None else _suggestion(suggestion)
    body["measured"] = measured
    return json.dumps(body, indent=2, default=str) + "\n"


def _outlook(outlook: Outlook) -> dict[str, object]:
    body = asdict(outlook)
    body["is_estimate"] = True
    if outlook.score is not None:
        score = outlook.score
        body["score"] |= {
            "value": score.value,
            "latency_price": score.latency_price,
            "usd_per_hour": score.usd_per_hour,
            "meets_threshold": score.meets_threshold,
        }
    return body


def _suggestion(suggestion: Suggestion) -> dict[str, object]:
    return {
        "objective": suggestion.objective,
        "num_tried": suggestion.num_tried,
        "num_fitting": suggestion.num_fitting,
        "limits": asdict(suggestion.plan.limits),
        "serving": asdict(suggestion.plan.serving),
        "fragment": suggestion.fragment(),
        "outlook": _outlook(suggestion.outlook),
    }
