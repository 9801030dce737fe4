from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.bench import run as runs
from tests.fakes import bad_server, small_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.bad_server import Behaviour

pytestmark = pytest.mark.integration  # they start processes and wait for them

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    small_tokenizer.byte_level().save(str(directory / "tokenizer.json"))
    return directory


@contextmanager
def started(tokenizer: Path, out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "scalellm_trt", "bench", "--tokenizer", str(tokenizer), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--isl", "20", "--osl", "3", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def bench(tokenizer: Path, out: Path, *arguments: str) -> tuple[int, str, str]:
    with started(tokenizer, out, *arguments) as process:
        output, errors = process.communicate(timeout=DEADLINE_S)
        return process.returncode, output, errors


def test_a_run_of_two_targets_writes_every_request_down(tokenizer: Path, tmp_path: Path) -> None:
    with bad_server.running("good") as one, bad_server.running("good") as two:
        code, output, errors = bench(
            tokenizer, tmp_path / "out", "--target", f"a={one.url}", "--target", f"b={two.url}?model=y", "--json",
            "--concurrency", "1,4", "--requests", "6", "--rounds", "2", "--processes", "2",
        )  # fmt: skip
    assert code == 0, errors
    run, records = runs.read(tmp_path / "out")
    assert not run.is_partial
    assert [(target.name, target.model) for target in run.targets] == [("a", "x"), ("b", "y")]
    assert [cell.target for cell in run.cells] == [0, 1, 1, 0, 1, 0, 0, 1]
    assert all(cell.is_complete and cell.end_s > cell.begin_s for cell in run.cells)
    assert [cell.client.num_processes for cell in run.cells[::2]] == [1, 2, 1, 2]
    for cell in run.cells:
        found = runs.records_of(cell, records)
        assert sorted(record.index for record in found) == list(range(6))
        assert {(record.isl, record.osl, record.server_osl, record.error) for record in found} == {(20, 3, 3, None)}
        assert all(cell.begin_s <= record.sent_s <= record.end_s <= cell.end_s for record in found)
    assert sum(record.is_warmup for record in records) == len(run.cells)
    assert len({str(request["messages"]) for request in one.requests if request.get("stream")}) == 4 * 7
    report = json.loads(output)
    assert report["directory"] == str(tmp_path / "out")
    assert [(row["target"], row["load"]["concurrency"], row["num_good"]) for row in report["rows"]] == [
        ("a", 1, 12), ("b", 1, 12), ("a", 4, 12), ("b", 4, 12),
    ]  # fmt: skip
    assert "<html" in (tmp_path / "out" / "report.html").read_text()


def test_an_open_loop_counts_from_when_a_request_was_due(tokenizer: Path, tmp_path: Path) -> None:
    with bad_server.running("good") as server:
        arguments = ["--rate", "20", "--arrival", "constant", "--duration", "0.5"]
        code, _, errors = bench(tokenizer, tmp_path / "out", "--target", f"a={server.url}", *arguments)
    assert code == 0, errors
    run, records = runs.read(tmp_path / "out")
    found = sorted(runs.records_of(run.cells[0], records), key=lambda record: record.scheduled_s)
    assert len(found) == 10
    first = found[0].scheduled_s
    assert [record.scheduled_s - first for record in found] == pytest.approx([i / 20 for i in range(10)], abs=1e-5)
    assert all(record.sent_s >= record.scheduled_s for record in found)


@pytest.mark.parametrize(("behaviour", "error"), [("server_error", "server_error"), ("hangs", "timeout")])
def test_a_target_that_only_fails_is_given_up_and_the_others_are_measured(
    tokenizer: Path, tmp_path: Path, behaviour: Behaviour, error: str
) -> None:
    with bad_server.running(behaviour) as bad, bad_server.running("good") as good:
        code, _, errors = bench(
            tokenizer, tmp_path / "out", "--target", f"bad={bad.url}?model=x&force=off", "--target", f"good={good.url}",
            "--concurrency", "1,2", "--requests", "20", "--timeout", "0.3",
        )  # fmt: skip
    assert code == 7, errors
    assert "bad is given up" in errors
    run, records = runs.read(tmp_path / "out")
    assert run.is_partial
    assert [(cell.target, cell.is_complete) for cell in run.cells] == [(0, False), (1, True), (1, True)]
    failed = [record for record in records if record.cell == 0 and not record.was_cancelled]
    assert {record.error for record in failed} == {error}
    assert len(failed) <= 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_a_valid_part_at_once(tokenizer: Path, tmp_path: Path, number: signal.Signals) -> None:
    with (
        bad_server.running("good") as server,
        started(
            tokenizer, tmp_path / "out", "--target", f"a={server.url}", "--concurrency", "1,2", "--duration", "300"
        ) as process,
    ):
        wait_for_records(tmp_path / "out", process)
        server.behaviour = "hangs"
        process.send_signal(number)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, errors
    run, records = runs.read(tmp_path / "out")
    assert run.is_partial
    assert [cell.is_complete for cell in run.cells] == [False]
    assert len(runs.records_of(run.cells[0], records)) >= 3
    assert "run: " in output


def test_a_kill_loses_the_last_line_at_most_and_leaves_no_process(tokenizer: Path, tmp_path: Path) -> None:
    import psutil

    with (
        bad_server.running("good") as server,
        started(tokenizer, tmp_path / "out", "--target", f"a={server.url}", "--duration", "300") as process,
    ):
        wait_for_records(tmp_path / "out", process)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate(timeout=DEADLINE_S)
        _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert children
    assert alive == []
    run, records = runs.read(tmp_path / "out")
    assert run.is_partial
    assert len(records) >= 4
    assert run.cells[0].end_s == max(record.end_s for record in records)


def wait_for_records(out: Path, process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    path = out / "records.jsonl"
    while not path.is_file() or path.read_text().count("\n") < 5:
        assert time.monotonic() < deadline_s
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_nothing_to_measure_and_two_ways_to_say_how_long_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    arguments = ["--target", "a=http://127.0.0.1:1", "--requests", "1", "--duration", "1"]
    code, _, errors = bench(tokenizer, tmp_path / "out", *arguments)
    assert code == 2
    assert "--duration: --requests says how long already" in errors
