"""Grafana's dashboard and Prometheus's rules name only what the gateway exports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from scalellm_trt.gateway.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
DASHBOARD = ROOT / "deploy" / "grafana" / "scalellm-gateway.json"
RULES = ROOT / "deploy" / "prometheus" / "scalellm-alerts.yaml"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SCRAPED_LABELS = {"instance", "le"}
NAME = re.compile(r"\bscalellm_[a-z0-9_]+")
LABELS = re.compile(r"(?:by|without) \(([^)]*)\)|\{([^}]*)\}")


def _exported() -> set[str]:
    families = Metrics().collect()
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def _labels() -> set[str]:
    metrics = [getattr(metric, "_metric", metric) for metric in vars(Metrics()).values()]
    return SCRAPED_LABELS.union(*(getattr(metric, "_labelnames", ()) for metric in metrics))


def _dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return dashboard


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _expressions() -> Iterator[tuple[str, str]]:
    for panel in _dashboard()["panels"]:
        for target in panel["targets"]:
            yield f"dashboard: {panel['title']}", target["expr"]
    for variable in _dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield f"dashboard: ${variable['name']}", variable["definition"]
    for rule in _rules():
        yield f"alert: {rule['alert']}", rule["expr"]


@pytest.mark.parametrize("expression", [pytest.param(text, id=name) for name, text in _expressions()])
def test_every_metric_and_label_is_exported(expression: str) -> None:
    names = set(NAME.findall(expression))
    assert names
    assert names <= _exported()
    for by, braces in LABELS.findall(expression):
        used = {part.strip() for part in by.split(",") if part.strip()} | set(re.findall(r"(\w+)\s*(?:=|!)", braces))
        assert used <= _labels()


def test_the_dashboard_shows_every_metric_of_the_gateways_work() -> None:
    shown = {name for _, text in _expressions() for name in NAME.findall(text)}
    stems = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown}
    known = {"scalellm_" + stem for stem in ("request_success", "request_failure", "request_cancelled")}
    known |= {"scalellm_" + stem for stem in ("num_requests_running", "num_requests_waiting", "backend_up")}
    assert known <= stems


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = _dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_alerts_say_what_is_wrong_and_how_bad_it_is() -> None:
    rules = _rules()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "description"}
