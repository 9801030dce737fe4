from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench import records, run
from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from pathlib import Path

RECORD = records.RequestRecord(
    cell=0,
    index=3,
    request_id="a",
    scheduled_s=1.0,
    sent_s=1.25,
    chunk_s=(1.5, 1.75),
    chunk_tokens=(1, 2),
    end_s=2.0,
    isl=7,
    osl=3,
    max_tokens=3,
)
RUN = run.Run(
    started="2026-11-25T10:00:00Z",
    command="scalellm-trt bench",
    environment={"machine": "2 cores"},
    targets=(run.Target(name="a", kind="openai", url="http://a", model="m", streams=True, facts={"digest": "d"}),),
    workloads=(run.WorkloadNote(name="fixed", seed=1, isl_p50=7, isl_max=7, osl_p50=3, digest="x"),),
    cells=(
        run.Cell(
            index=0,
            target=0,
            workload=0,
            load=run.Load(mode="closed", concurrency=4),
            round=0,
            begin_s=1.0,
            end_s=2.0,
            client=run.ClientHealth(
                num_processes=1, cpu_share=0.1, loop_lag_p50_ms=0.1, loop_lag_p99_ms=1.0, send_delay_p99_ms=0.0
            ),
            is_complete=True,
        ),
    ),
    timeout_s=60.0,
    is_partial=False,
)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    warmup = dataclasses.replace(RECORD, is_warmup=True, error="timeout", error_text="60 s")
    RUN.write(tmp_path)
    records.write_all([RECORD, warmup], tmp_path / "records.jsonl")
    found, all_records = run.read(tmp_path)
    assert found == RUN
    assert all_records == [RECORD, warmup]
    assert run.records_of(found.cells[0], all_records) == [RECORD]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records.write_all([RECORD, RECORD], path)
    path.write_bytes(path.read_bytes()[:-9])
    assert list(records.read(path)) == [RECORD]


@pytest.mark.parametrize(
    ("old", "new"), [('"index":3', '"index"'), ('"error":null', '"error":"odd"'), ("[1,2]", "[1]")]
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "records.jsonl"
    records.write_all([RECORD, RECORD], path)
    lines = path.read_text().splitlines()
    path.write_text(f"{lines[0]}\n{lines[1].replace(old, new)}\n")
    with pytest.raises(ArtefactError, match=r"records\.jsonl:2: not a record"):
        list(records.read(path))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema": 0}'])
def test_what_is_no_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"run\.json"):
        run.read(tmp_path)
