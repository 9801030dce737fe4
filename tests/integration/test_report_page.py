"""A benchmark's report in a real browser: nothing is fetched, nothing complains, nothing sticks out."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench.metrics import Slo
from scalellm_trt.bench.report import content, page
from scalellm_trt.economics import ApiPrice
from tests.fakes import bench_runs, browsers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.integration
SIZES = {"phone": (390, 844), "laptop": (1280, 800)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.opened() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("a-gateway-with-a-rather-long-name", "vllm <img src=http://evil.example/x>")
    described, records = bench_runs.drawn(names=names, loads=(1, 2, 4, 8))
    first, second = described.targets
    facts = {"manifest digest": "sha256:" + "ab" * 32, "server": "<script>document.title = 'broken'</script>"}
    described = dataclasses.replace(
        described, targets=(dataclasses.replace(first, hardware="rtx4090", facts=facts), second)
    )
    found = content.gather(described, records, slo=Slo(ttft_ms=70), api=ApiPrice(input_usd=0.1, output_usd=0.4))
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page.html(found), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_report_is_quiet_and_fits(browser: Browser, report: Path, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    shown = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(report.as_uri())
    shown.evaluate("() => document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert shown.evaluate("() => document.documentElement.scrollWidth") == width
    assert said == []
    assert asked == [report.as_uri()]
    assert shown.title().startswith("Benchmark of a-gateway")
    assert shown.locator("svg.chart").count() >= 10
    # Letters keep their size: a chart is not drawn much smaller than it was made for.
    scale = shown.evaluate("() => document.querySelector('svg.chart').getBoundingClientRect().width / 360")
    assert 0.9 < scale < 1.6
    paper = shown.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(15, 18, 22)" if scheme == "dark" else "rgb(244, 245, 247)")
    context.close()
