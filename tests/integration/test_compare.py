"""`compare` between two real servers whose speed is known: the faster one is named, equal ones are not told apart.

Times are chosen so that a wrong verdict needs a machine that delays most tokens of most rounds by a multiple of the
gaps: a server's tokens are due at fixed times, so a delay does not add up. The threshold takes what is left of chance:
a 95% interval alone misses 1 in one of twenty comparisons of equals.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import timed_servers

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
COMPARE = [sys.executable, "-m", "scalellm_trt", "compare"]
WORK = ["--isl", "16", "--osl", "8", "--concurrency", "1,3", "--requests", "4", "--rounds", "3", "--threshold", "0.5"]
METRICS = {"ttft_ms", "tpot_ms", "e2e_latency_ms", "output_token_throughput"}


def run(directory: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    timed_servers.write_tokenizer(directory)
    argv = [*COMPARE, *WORK, "--tokenizer", str(directory), "--out", str(out), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)


def ratios(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the ratios by load and metric."""
    assert done.returncode == 0, done.stderr
    found = {(each["load"], each["metric"]): each for each in json.loads(done.stdout)["ratios"]}
    assert found.keys() == {(load, metric) for load in ("1", "3") for metric in METRICS}
    return found


def test_the_faster_of_two_servers_is_named_in_time_per_token_and_in_throughput(tmp_path: Path) -> None:
    with timed_servers.running(20, 10) as fast, timed_servers.running(20, 60) as slow:
        targets = ["--target", f"slow={slow}", "--target", f"fast={fast}"]
        found = ratios(run(tmp_path, tmp_path / "run", *targets, "--json"))
        for (_, metric), each in found.items():
            if metric != "ttft_ms":
                assert (each["better"], each["num_rounds"]) == ("fast", 3), each
        for load in ("1", "3"):
            # 20 + 7 * 10 against 20 + 7 * 60 ms for 8 tokens: 4.9 times as many, less by what the machine adds.
            assert found[load, "tpot_ms"]["ratio"]["value"] < 1 < found[load, "output_token_throughput"]["ratio"]["low"]
        # The same server name, 6 times slower than in the run before: that is a regression.
        targets = ["--target", f"fast={slow}", "--baseline", str(tmp_path / "run")]
        done = run(tmp_path, tmp_path / "later", *targets)
    assert done.returncode == 8, done.stderr
    for load in ("1", "3"):
        for metric in ("TPOT (ITL)", "Output token throughput"):
            assert f"fast at {load}: {metric} × " in done.stderr
    assert "baseline is better" in done.stdout


def test_two_servers_of_one_speed_are_not_told_apart(tmp_path: Path) -> None:
    with timed_servers.running(60, 40) as one, timed_servers.running(60, 40) as other:
        targets = ["--target", f"one={one}", "--target", f"other={other}"]
        found = ratios(run(tmp_path, tmp_path / "run", *targets, "--json"))
        assert {each["verdict"] for each in found.values()} == {"no difference"}
        assert {each["better"] for each in found.values()} == {None}
