from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from scalellm_trt.bench.export import aiperf, genai_perf, guidellm, vllm
from scalellm_trt.bench.metrics import Slo
from scalellm_trt.bench.report import content
from scalellm_trt.bench.run import Load
from scalellm_trt.cli.command_line import run as command
from tests.fakes import bench_runs
from tests.fakes.bench_runs import cell, record, run, target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GOLDENS = Path("tests/goldens/exports")
# Two good requests, a failed and a given up one, in ten seconds.
RECORDS = [
    record((1.0, 1.25, 1.5), 1.5, index=0, request_id="a", isl=10),
    record((2.0, 2.1, 2.3, 2.6), 3.0, index=1, request_id="b", isl=20, scheduled_s=1.5, chunk_tokens=(1, 2, 1, 1)),
    record((), 4.0, index=2, request_id="c", scheduled_s=3.0, error="server_error", error_text="500"),
    record((9.0,), 10.0, index=3, request_id="d", scheduled_s=8.0, was_cancelled=True),
]
MANIFEST = {"manifest digest": "sha256:ab"}


def gathered(**fields: Any) -> content.Content:
    described = run([cell(0, 2, **fields)], [target(hardware="rtx4090", facts=MANIFEST)])
    return content.gather(described, RECORDS, slo=Slo(ttft_ms=800))


def valid(name: str, text: str) -> Any:
    schema = json.loads((GOLDENS / f"{name}.schema.json").read_text())
    found = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(found)
    return found


def test_aiperfs_records_and_sums() -> None:
    files = aiperf.files(gathered())
    lines = files["gateway-concurrency-2/profile_export.jsonl"].splitlines()
    records = [valid("aiperf_record", line) for line in lines]
    assert [each["metadata"]["x_request_id"] for each in records] == ["a", "b", "c", "d"]
    assert records[1]["metrics"]["time_to_first_token"] == {"value": 500.0, "unit": "ms"}
    assert records[1]["metrics"]["inter_chunk_latency"]["value"] == pytest.approx([100, 200, 300])
    took = records[1]["metadata"]["request_end_ns"] - records[1]["metadata"]["request_start_ns"]
    assert took == pytest.approx(1.5e9, abs=1000)
    assert records[2]["error"] == {"code": None, "type": "server_error", "message": "500"}
    assert records[3]["metadata"]["was_cancelled"] is True
    sums = valid("aiperf", files["gateway-concurrency-2/profile_export_aiperf.json"])
    assert sums["request_latency"]["avg"] == pytest.approx(1500)
    assert sums["inter_token_latency"]["avg"] == pytest.approx((250 + 1000 / 4) / 2)
    assert sums["request_count"]["avg"] == 2
    assert sums["goodput"]["avg"] == pytest.approx(0.1)
    assert sums["error_summary"] == [{"error_details": {"type": "server_error", "message": "server_error"}, "count": 1}]
    assert sums["start_time"] == "2026-11-25T10:00:00+00:00"
    assert sums["manifest_digest"] == "sha256:ab"
    assert sums["load"]["concurrency"] == 2
    # A third of what was decided failed: that is no latency to score.
    assert sums["economics"] == []


@pytest.mark.parametrize(
    ("files", "name", "golden"),
    [
        (aiperf.files, "gateway-concurrency-2/profile_export_aiperf.csv", "aiperf.csv"),
        (genai_perf.files, "gateway-concurrency-2/profile_export_genai_perf.csv", "genai_perf.csv"),
    ],
)
def test_tables_for_spreadsheets(files: Callable[[content.Content], Mapping[str, str]], name: str, golden: str) -> None:
    assert files(gathered())[name].splitlines() == (GOLDENS / golden).read_text().splitlines()


def test_genai_perfs_sums() -> None:
    found = valid("genai_perf", genai_perf.files(gathered())["gateway-concurrency-2/profile_export_genai_perf.json"])
    assert found["time_to_first_token"]["p50"] == pytest.approx(750)
    assert found["input_config"]["perf_analyzer"]["stimulus"] == {"concurrency": 2}
    assert "inter_chunk_latency" not in found


def test_vllms_result() -> None:
    found = valid("vllm", vllm.files(gathered())["gateway-concurrency-2.json"])
    assert (found["completed"], found["failed"], found["max_concurrency"]) == (2, 2, 2)
    assert found["request_rate"] == "inf"
    assert found["median_ttft_ms"] == pytest.approx(750)
    assert found["median_itl_ms"] == pytest.approx(250)
    assert found["total_token_throughput"] == pytest.approx((30 + 8) / 10)
    assert found["request_goodput"] == pytest.approx(0.1)
    assert found["errors"] == ["", "", "server_error", "cancelled"]
    assert len(found["ttfts"]) == len(found["itls"]) == len(found["latencies"]) == 4
    poisson = vllm.files(gathered(load=Load(mode="poisson", rate_per_s=3.0)))
    assert valid("vllm", poisson["gateway-poisson-3.json"])["request_rate"] == 3.0


def test_guidellms_report_by_its_own_meaning_of_each_name() -> None:
    found = valid("guidellm", guidellm.files(gathered())["gateway/benchmarks.json"])
    (benchmark,) = found["benchmarks"]
    metrics = benchmark["metrics"]
    assert benchmark["config"]["strategy"] == {"type_": "concurrent", "streams": 2}
    assert metrics["request_totals"] == {"successful": 2, "errored": 1, "incomplete": 1, "total": 4}
    assert metrics["time_to_first_token_ms"]["successful"]["median"] == pytest.approx(750)
    assert metrics["inter_token_latency_ms"]["successful"]["mean"] == pytest.approx(250)
    # 1.5 s for three tokens, and for five.
    assert metrics["time_per_output_token_ms"]["successful"]["mean"] == pytest.approx((500 + 300) / 2)
    assert metrics["request_latency"]["errored"]["mean"] == pytest.approx(1.0)
    assert metrics["output_tokens_per_second"]["successful"]["mean"] == pytest.approx(0.8)
    # 1.5 + 1.5 + 1 + 2 s of requests in ten seconds.
    assert metrics["request_concurrency"]["total"]["mean"] == pytest.approx(0.6)
    assert metrics["iter_tokens_per_iteration"]["successful"]["max"] == pytest.approx(4 / 3)


def test_every_format_takes_a_whole_run_without_streaming_and_with_failures() -> None:
    described, records = bench_runs.drawn(names=("a/../b", "vllm"), loads=(1, 2), rounds=2)
    first, second = described.targets
    first = dataclasses.replace(first, hardware="rtx4090")
    described = dataclasses.replace(described, targets=(first, dataclasses.replace(second, streams=False)))
    records = [dataclasses.replace(each, error="refused") if each.cell == 0 else each for each in records]
    found = content.gather(described, records)
    for each in (aiperf, genai_perf, vllm, guidellm):
        files = each.files(found)
        assert files
        for name, text in files.items():
            assert not Path(name).is_absolute()
            assert "/../" not in f"/{name}/"
            if name.endswith(".json"):
                assert "NaN" not in text
                assert "Infinity" not in text
                json.loads(text)
    unstreamed = json.loads(aiperf.files(found)["vllm-concurrency-1/profile_export_aiperf.json"])
    assert "time_to_first_token" not in unstreamed
    assert unstreamed["request_latency"]["count"] == 12
    scored = json.loads(aiperf.files(found)["a_.._b-concurrency-2/profile_export_aiperf.json"])
    assert [each["price"]["gpu"] for each in scored["economics"]] == ["rtx4090"]


def test_export_writes_files_and_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = bench_runs.write(*bench_runs.drawn(loads=(1,), rounds=1), tmp_path / "run")
    assert command(["export", str(directory), "--format", "guidellm"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names == [str(directory / "guidellm" / name / "benchmarks.json") for name in ("gateway", "vllm")]
    assert all(Path(name).exists() for name in names)
    assert command(["export", str(directory), "--format", "vllm", "--out", str(tmp_path / "there")]) == 0
    assert len(list((tmp_path / "there").glob("*.json"))) == 2
    assert command(["export", str(directory), "--format", "excel"]) == 2
    assert "Allowed: aiperf, genai-perf, vllm, guidellm." in capsys.readouterr().err
