from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scalellm_trt.cli.command_line import run
from tests.fakes import bench_runs


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    described, records = bench_runs.drawn(loads=(1, 2))
    first, second = described.targets
    described = dataclasses.replace(described, targets=(dataclasses.replace(first, hardware="rtx4090"), second))
    return bench_runs.write(described, records, tmp_path / "run")


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["score", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_typed_numbers_give_the_published_score_back(capsys: pytest.CaptureFixture[str]) -> None:
    # 0.049301 dollar seconds per hour at 0.69 USD/h.
    (found,) = scored(capsys, "--latency-ms", "71.4513", "--price", "0.69", "--prompt", "512")["scores"]
    assert found["score"] == pytest.approx(20.2836, abs=5e-4)
    assert (found["basis"], found["prompt_tokens"], found["latency_price"]) == (
        "typed",
        512,
        pytest.approx(0.049301, abs=1e-6),
    )
    three = ["--latency-ms", "113", "--price", "a100-80g=4.10", "--hardware", "a100-80g", "--services", "3"]
    (found,) = scored(capsys, *three)["scores"]
    assert found["score"] == pytest.approx(3 / (0.113 * 4.10))
    assert found["price"]["gpu"] == "a100-80g"


def test_typed_rates_give_a_cost_that_nothing_splits(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["--latency-ms", "100", "--hardware", "rtx4090", "--output-tokens-per-s", "1000"]
    (found,) = scored(capsys, *typed, "--price", "3.6")["scores"]
    assert found["usd_per_million_tokens"] == {
        "input_usd": None,
        "output_usd": None,
        "blended_usd": pytest.approx(1.0),
        "all_on_output_usd": pytest.approx(1.0),
    }


def test_a_run_is_scored_by_target_and_load_and_what_has_no_price_is_named(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scored(capsys, str(directory))
    assert [(each["source"], each["load"], each["basis"]) for each in found["scores"]] == [
        ("run: gateway", "1 at once", "measured"),
        ("run: gateway", "2 at once", "measured"),
    ]
    assert [each["source"] for each in found["missing"]] == ["run: vllm at 1", "run: vllm at 2"]
    only = scored(capsys, str(directory), "--load", "2", "--hardware", "vllm=t4", "--percentile", "99")
    assert [(each["source"], each["latency_name"]) for each in only["scores"]] == [
        ("run: gateway", "p99 TTFT"),
        ("run: vllm", "p99 TTFT"),
    ]


def test_a_threshold_takes_the_score_of_what_is_slower(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", str(directory), "--threshold-ms", "1"]) == 0
    shown = capsys.readouterr().out
    assert "0 (above 0.001 s)" in shown
    assert "None is within 0.001 s." in shown


def test_recipes_are_estimates_and_the_cheapest_card_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    recipes = ["recipes/rtx4090.yaml", "recipes/t4.yaml", "recipes/cpu.yaml"]
    assert run(["score", *recipes, "--threshold-ms", "700", "--api-input", "0.1", "--api-output", "0.4"]) == 0
    shown = capsys.readouterr().out
    assert "estimate = predicted, nobody measured it" in shown
    # A T4 reads 512 tokens of a 13B model in 0.73 s.
    assert "0 (above 0.7 s)" in shown
    assert "Cheapest by the hour within 0.7 s: rtx4090 on rtx4090" in shown
    assert "USD per million input / output tokens" in shown
    assert "no score cpu on cpu" in shown


def test_an_slo_has_a_limit_of_the_time_per_token_too(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free = scored(capsys, str(directory), "--percentile", "90")["scores"]
    slow, fast = max(each["tpot_ms"] for each in free), min(each["tpot_ms"] for each in free)
    assert slow > fast
    limit = ["--threshold-ms", "1000", "--tpot-ms", f"{(slow + fast) / 2}"]
    judged = scored(capsys, str(directory), "--percentile", "90", *limit)["scores"]
    by_load = {each["load"]: each for each in judged}
    # Under the fake's second load everything is slower.
    assert by_load["1 at once"]["score"] == next(each["score"] for each in free if each["load"] == "1 at once")
    assert by_load["2 at once"]["score"] == 0
    assert by_load["2 at once"]["tpot_name"] == "p90 TPOT"
    assert by_load["2 at once"]["limits_judged"] == ["TTFT 1 s", f"TPOT {(slow + fast) / 2:g} ms"]
    assert (free[0]["tpot_limit_ms"], free[0]["limits_judged"]) == (None, [])
    assert run(["score", str(directory), "--percentile", "90", *limit]) == 0
    shown = capsys.readouterr().out
    assert f"0 (TPOT above {(slow + fast) / 2:g} ms)" in shown
    assert "Cheapest by the hour within TTFT 1 s and TPOT " in shown


def test_a_recipes_own_limit_is_judged_at_the_batch_whose_tokens_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for tpot_ms in ("null", "25", "17"):
        files[tpot_ms] = tmp_path / f"r{tpot_ms}.yaml"
        base = Path("recipes/rtx4090.yaml").resolve()
        text = f"extends: {os.path.relpath(base, tmp_path)}\nname: r\nslo: {{tpot_ms: {tpot_ms}}}\n"
        files[tpot_ms].write_text(text)
    free, kept, missed = scored(capsys, *map(str, files.values()))["scores"]
    assert free["load"] == "1 prompt at once; tokens: 16 requests at once"
    assert (free["tpot_limit_ms"], free["tpot_ms"]) == (None, pytest.approx(29.98, abs=0.01))
    assert kept["load"] == "1 prompt at once; tokens: 8 requests at once"
    assert (kept["tpot_limit_ms"], kept["tpot_ms"]) == (25, pytest.approx(23.52, abs=0.01))
    assert (kept["score"], kept["basis"]) == (free["score"], "estimate")
    assert kept["usd_per_million_tokens"]["blended_usd"] > free["usd_per_million_tokens"]["blended_usd"]
    assert missed["load"] == "1 prompt at once; tokens: 1 request at once"
    assert (missed["score"], missed["meets_threshold"]) == (0, False)
    # The command line is stronger than the recipe.
    (again,) = scored(capsys, str(files["17"]), "--tpot-ms", "25")["scores"]
    assert again["score"] == free["score"]
    assert run(["score", *map(str, files.values())]) == 0
    shown = capsys.readouterr().out
    assert "0 (TPOT above 17 ms)" in shown
    assert "Cheapest by the token within its own limits: rnull on rtx4090" in shown


def test_typed_numbers_without_a_time_per_token_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["--latency-ms", "100", "--price", "1", "--tpot-ms", "20"]
    assert run(["score", *typed]) == 0
    shown = capsys.readouterr().out
    assert "0 (TPOT not known)" in shown
    assert "None is within TPOT 20 ms." in shown
    (kept,) = scored(capsys, *typed, "--token-latency-ms", "20")["scores"]
    assert (kept["score"], kept["tpot_ms"], kept["tpot_name"]) == (pytest.approx(10), 20, "as typed")
    (slow,) = scored(capsys, *typed, "--token-latency-ms", "20.5")["scores"]
    assert slow["score"] == 0


def test_a_recipe_is_asked_what_it_were_on_other_cards(capsys: pytest.CaptureFixture[str]) -> None:
    found = scored(capsys, "recipes/rtx4090.yaml", "--hardware", "l4,t4")
    assert [each["price"]["gpu"] for each in found["scores"]] == ["l4"]
    assert found["missing"] == [{"source": "rtx4090 on t4", "reason": "does not fit"}]


def test_the_published_table_is_worked_out_at_stated_prices(capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--price", "t4=1.204", "--price", "a100-80g=4.1", "--price", "rtx4090=0.69"]
    found = scored(capsys, "--published", *prices)
    implied = {row["name"]: [each["latency_s"] for each in row["implied"]] for row in found["rows"]}
    assert implied["T4"] == [pytest.approx(0.728, abs=5e-4)]
    assert implied["A100, 3 services"] == [pytest.approx(0.113, abs=5e-4)]
    assert len(implied["L4"]) == 3
    assert len(found["not_derivable"]) == 5
    assert run(["score", "--published", *prices]) == 0
    shown = capsys.readouterr().out
    (t4,) = [line.split() for line in shown.splitlines() if line.startswith("T4 ")]
    assert t4[1:7] == ["1", "1.14097", "0.876450", "1.204", "0.728", "1.14097"]
    assert "Not derivable: any latency or price by itself" in shown


def test_own_prices_and_a_plot(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = tmp_path / "prices.yaml"
    row = "{gpu: rtx4090, provider: me, usd_per_hour: 0.1, date: '2026-11-25', source: a bill}"
    prices.write_text(f"prices:\n  mine: {row}\n")
    plot = tmp_path / "scores.svg"
    assert run(["score", str(directory), "--prices", str(prices), "--plot", str(plot)]) == 0
    assert "rtx4090 0.1 USD/h, me, 2026-11-25, a bill" in capsys.readouterr().out
    root = ElementTree.parse(plot).getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "there is nothing to score\n  Name runs or recipes"),
        (["--latency-ms", "3"], 2, "--price: no price is given"),
        (["--latency-ms", "3", "--price", "cheap"], 2, "--price: 'cheap' is no price"),
        (["--latency-ms", "3", "--price", "rtx409=1"], 2, "Nearest: rtx4090."),
        (["--latency-ms", "3", "--price", "1", "--percentile", "51"], 2, "Allowed: 50, 90, 95, 99."),
        (["--latency-ms", "3", "--price", "1", "--plot", "a.png"], 2, "--plot: 'a.png' is no SVG file"),
        (["recipes/rtx4090.yaml", "--token-latency-ms", "3"], 2, "--token-latency-ms: a score needs a time to first"),
        (["recipes/cpu.yaml"], 3, "cpu on cpu: no score: no price of cpu"),
        (["absent.yaml"], 2, "absent.yaml"),
    ],
)
def test_what_cannot_be_scored_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert run(["score", *arguments]) == code
    assert said in capsys.readouterr().err
