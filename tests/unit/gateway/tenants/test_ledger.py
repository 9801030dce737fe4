from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import ArtefactError, RecipeError
from scalellm_trt.gateway.replies import Usage
from scalellm_trt.gateway.tenants import compaction, ledger, ledger_files
from scalellm_trt.gateway.tenants.ledger import Ledger
from scalellm_trt.gateway.tenants.ledger_files import HOUR_S, Used
from scalellm_trt.gateway.tenants.price import Price

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 490_000
USAGE = Usage(prompt_tokens=7, completion_tokens=5, cached_tokens=4)


def _write(directory: Path, hour: int, num_requests: int, tenant: str = "a") -> None:
    book = Ledger(directory, lambda: float(hour * HOUR_S + 1))
    for _ in range(num_requests):
        book.note(tenant, "m", USAGE)
    book.close()


def _all(directory: Path) -> ledger_files.Sums:
    return ledger_files.add_up(ledger_files.hours(directory).values())


def test_what_was_used_adds_up(tmp_path: Path) -> None:
    _write(tmp_path, HOUR, 3)
    _write(tmp_path, HOUR, 1, "b")
    _write(tmp_path, HOUR + 1, 2)
    assert list(ledger_files.hours(tmp_path)) == [HOUR, HOUR + 1]
    assert _all(tmp_path).used == {
        ("a", "m"): Used(requests=5, prompt_tokens=35, cached_tokens=20, completion_tokens=25),
        ("b", "m"): Used(requests=1, prompt_tokens=7, cached_tokens=4, completion_tokens=5),
    }


def test_old_hours_become_small_and_say_the_same(tmp_path: Path) -> None:
    for hour in reversed(range(HOUR, HOUR + 4)):
        _write(tmp_path, hour, 100)
    before = _all(tmp_path)
    sizes = [path.stat().st_size for path in ledger_files.hours(tmp_path).values()]
    for _ in range(2):
        compaction.compact(tmp_path, HOUR + 3)
        assert _all(tmp_path) == before
    after = [path.stat().st_size for path in ledger_files.hours(tmp_path).values()]
    assert [new < old / 50 for new, old in zip(after, sizes, strict=True)] == [True, True, False, False]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_new_hour_compacts_the_old_ones(tmp_path: Path) -> None:
    _write(tmp_path, HOUR, 50)
    _write(tmp_path, HOUR + 5, 1)
    old = tmp_path / ledger_files.file_name(HOUR)
    deadline = time.monotonic() + 30
    while old.read_bytes().startswith(b"\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert _all(tmp_path).used["a", "m"].requests == 51


def test_half_a_line_spoils_no_other_and_is_kept(tmp_path: Path) -> None:
    _write(tmp_path, HOUR, 1)
    path = tmp_path / ledger_files.file_name(HOUR)
    with path.open("ab") as file:
        file.write(b'\n{"tenant":"a","mod')
    _write(tmp_path, HOUR, 1)
    sums = _all(tmp_path)
    assert (sums.used["a", "m"].requests, sums.num_unreadable) == (2, 1)
    compaction.compact(tmp_path, HOUR + 9)
    assert _all(tmp_path) == sums


def test_a_full_disk_costs_the_line_and_not_the_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = Ledger(tmp_path / "missing", lambda: 0.0)
    book.note("a", "m", USAGE)
    (record,) = [each for each in caplog.records if each.message == "the ledger cannot be written"]
    assert '"completion_tokens":5' in record.fields["line"]  # type: ignore[attr-defined]


def test_a_ledger_that_cannot_be_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"ledger.directory: .*file/usage cannot be written"):
        ledger.prepare(tmp_path / "file" / "usage")
    with pytest.raises(ArtefactError, match="no ledger can be read: No such file"):
        ledger_files.hours(tmp_path / "none")


def test_prices_are_of_a_million_tokens() -> None:
    price = Price.of(2.0, 6.0)
    assert price is not None
    assert price.cost(Used(prompt_tokens=500_000, completion_tokens=250_000)) == 2.5
    assert Price.of(None, None) is None
    assert Price.of(None, 1.0) == Price(of_input=0.0, of_output=1.0)


CHILD = """
import sys
from pathlib import Path
from scalellm_trt.gateway.replies import Usage
from scalellm_trt.gateway.tenants.ledger import Ledger
book, number = Ledger(Path(sys.argv[1])), 0
while True:
    number += 1
    book.note("a", "m", Usage(prompt_tokens=1, completion_tokens=number))
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_loses_nothing_that_was_told(tmp_path: Path) -> None:
    told: list[int] = []
    for attempt in range(4):
        with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(random.Random(attempt).uniform(0, 0.02))
            os.kill(child.pid, signal.SIGKILL)
            lines = [first, *child.stdout.read().splitlines(keepends=True)]
        told.append(int([line for line in lines if line.endswith(b"\n")][-1]))
    used = _all(tmp_path).used["a", "m"]
    # The last one of each child may have been written and not been told.
    assert sum(told) <= used.requests <= sum(told) + len(told)
    assert sum(number * (number + 1) // 2 for number in told) <= used.completion_tokens
