from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from scalellm_trt.bench.metrics import Slo
from scalellm_trt.bench.report import as_json, charts, content, markdown, page, pictures
from scalellm_trt.economics import ApiPrice
from tests.fakes import bench_runs

if TYPE_CHECKING:
    from scalellm_trt.bench.report.content import Content

EVIL = '<script>alert("x")</script>|&'


def gathered(
    *,
    hardware: str | None = "rtx4090",
    name: str = "gateway",
    api: ApiPrice | None = None,
    slo: Slo | None = Slo(ttft_ms=60),  # noqa: B008  it is frozen
) -> Content:
    described, records = bench_runs.drawn(names=(name, "vllm"), loads=(1, 4))
    first, second = described.targets
    first = dataclasses.replace(first, hardware=hardware, facts={"manifest digest": "sha256:ab12", "recipe": EVIL})
    described = dataclasses.replace(described, targets=(first, second))
    return content.gather(described, records, slo=slo, api=api)


class Tags(HTMLParser):
    """Collects what a page is made of, and refuses one whose tags do not pair."""

    EMPTY = ("meta", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [str(value) for key, value in attrs if key in ("href", "src")]
        self.open += [] if tag in self.EMPTY else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_needs_nothing_and_escapes_every_name() -> None:
    tags = Tags()
    text = page.html(gathered(name=EVIL))
    tags.feed(text)
    assert tags.open == []
    assert "script" not in tags.seen
    assert tags.addresses == ["data:,"]
    assert EVIL not in text
    assert EVIL in tags.text
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_shows_doubts_first_then_figures_charts_money_environment_formulas() -> None:
    text = page.html(gathered())
    shown = [
        "Good to know",
        "TTFT / time between tokens",
        "TTFT against concurrency",
        "Latency against throughput",
        "TPOT (ITL) at 4 at once",
        "Timeline of tokens: gateway at 4 at once",
        "USD per million tokens",
        "sha256:ab12",
        "How figures are made",
    ]
    places = [text.index(each) for each in shown]
    assert places == sorted(places)
    assert "prefers-color-scheme: dark" in text


def test_every_form_of_a_report_says_by_which_limits_scores_were_judged() -> None:
    # At 4 at once the fake takes 14 ms a token, at 1 it takes 11.
    found = gathered(slo=Slo(ttft_ms=500, tpot_ms=12.5))
    assert [each.score.meets_threshold for each in found.standings] == [True, False]
    sentence = "Cheapest by the hour within TTFT 0.5 s and TPOT 12.5 ms: gateway on rtx4090, 1 at once (measured),"
    for text in (page.html(found), markdown.markdown(found)):
        assert "Limits judged: TTFT 0.5 s, TPOT 12.5 ms; 0 also where TPOT is not known." in text
        assert "0 (TPOT above 12.5 ms)" in text
        assert sentence in text
    assert "0: a limit is missed, see the table." in page.html(found)
    economics = as_json.as_json(found)["economics"]
    assert [each["limits_judged"] for each in economics] == [["TTFT 0.5 s", "TPOT 12.5 ms"]] * 2
    assert economics[1]["tpot_ms"] > 12.5 > economics[0]["tpot_ms"]


def test_a_report_without_limits_judges_none() -> None:
    found = gathered(slo=None)
    assert all(each.score.meets_threshold for each in found.standings)
    for text in (page.html(found), markdown.markdown(found)):
        assert "Cheapest by the hour: gateway on rtx4090" in text
        assert "Limits judged" not in text
        assert "TPOT, ms" not in text
        assert "a limit is missed" not in text


def test_every_form_of_a_report_compares_targets_with_the_first_one() -> None:
    found = gathered()
    for text in (page.html(found), markdown.markdown(found)):
        assert "gateway is better" in text
        assert "Output token throughput" in text
        assert "so a single round promises too much" in text
    ratios = as_json.as_json(found)["comparison"]
    assert {each["load"] for each in ratios} == {"1", "4"}
    # The fake's second target is 1.5 times slower.
    (rate,) = [each for each in ratios if (each["load"], each["metric"]) == ("4", "output_token_throughput")]
    assert (rate["target"], rate["reference"], rate["better"]) == ("vllm", "gateway", "gateway")
    assert rate["ratio"]["value"] == pytest.approx(1 / 1.5, rel=0.1)
    alone = content.gather(*bench_runs.drawn(names=("gateway",)))
    assert "Comparison" not in page.html(alone)
    assert "Comparison" not in markdown.markdown(alone)
    assert as_json.as_json(alone)["comparison"] == []


def test_without_a_price_the_page_says_how_to_give_one() -> None:
    text = page.html(gathered(hardware=None))
    assert "--hardware TARGET=CARD" in text


def test_every_chart_is_a_picture_of_its_own_with_words_for_those_who_cannot_see() -> None:
    found = pictures.draw(gathered())
    assert len(found) >= 9
    for each in found:
        root = ElementTree.fromstring(each.svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert "nan" not in each.svg
        assert "inf" not in each.svg.replace("info", "")


def test_a_line_lies_where_its_figures_are() -> None:
    points = (charts.Point(x=1, y=10, low=10, high=20, told="a & b"), charts.Point(x=3, y=100, low=50, high=100))
    svg = charts.lines([charts.Series(name="a", colour=9, points=points)], label="l", x_title="x", y_title="y")
    found = re.search(r'<path d="M(\S+) (\S+)L(\S+) (\S+)" class="line c1"/>', svg)
    assert found is not None
    x1, y1, x2, y2 = map(float, found.groups())
    width, height = charts.WIDTH - charts.LEFT - charts.RIGHT, charts.HEIGHT - charts.TOP - charts.BOTTOM
    assert x2 - x1 == pytest.approx(width * 2 / 3, abs=0.2)
    assert y1 - y2 == pytest.approx(height * 0.9, abs=0.2)
    assert "a &amp; b" in svg


def test_a_timeline_has_a_row_for_each_request_and_a_stroke_for_each_chunk() -> None:
    records = [bench_runs.record(index=index) for index in range(charts.MAX_TIMELINE_ROWS + 5)]
    svg = charts.timeline(records, 0, label="t", origin_s=0.0)
    assert svg.count("<rect") == charts.MAX_TIMELINE_ROWS
    assert len(re.findall(r"M[0-9.]+ [0-9.]+V", svg)) == 3 * charts.MAX_TIMELINE_ROWS
    failed = charts.timeline([bench_runs.record(error="timeout")], 0, label="t", origin_s=0.0)
    assert "wait failed" in failed
    assert "timeout" in failed


def test_markdown_has_the_same_tables() -> None:
    text = markdown.markdown(gathered(name=EVIL, api=ApiPrice(input_usd=0.1, output_usd=0.4)))
    assert text.startswith("# Benchmark of &lt;script>")
    assert "<script" not in text
    for heading in ("## Read this first", "## Latency and throughput", "## Economics", "## Environment"):
        assert heading in text
    assert "95% confidence" in text
    assert "than an API at 0.1 / 0.4 USD" in text
    rows = [line for line in text.splitlines() if line.startswith("| 4 |")]
    assert rows


def test_json_has_every_figure_with_its_interval_formula_and_price() -> None:
    found = json.loads(as_json.text(gathered(api=ApiPrice(input_usd=0.1, output_usd=0.4))))
    row = found["rows"][0]
    assert set(row["ttft_ms"]) >= {"count", "mean", "std", "minimum", "maximum", "p50", "p90", "p95", "p99"}
    assert row["ttft_ms"]["p50"]["low"] <= row["ttft_ms"]["p50"]["value"] <= row["ttft_ms"]["p50"]["high"]
    assert found["metrics"]["ttft_ms"]["unit"] == "ms"
    assert found["metrics"]["goodput"]["formula"].startswith("goodput = ")
    money = found["economics"][0]
    assert money["basis"] == "measured"
    assert money["price"]["date"] == "2026-03-10"
    assert money["usd_per_million_tokens"]["output_usd"] > 0
    assert money["break_even"]["hours_per_day"] > 0


def test_an_empty_run_still_has_a_report() -> None:
    described = dataclasses.replace(bench_runs.run([]), is_partial=True)
    found = content.gather(described, [])
    assert "interrupted" in page.html(found)
    assert markdown.markdown(found)
    assert json.loads(as_json.text(found))["rows"] == []
    nothing = content.gather(bench_runs.run([bench_runs.cell(is_complete=False)]), [])
    assert "nothing finished" in page.html(nothing)
