"""process: children are logged, bounded, and never outlive the command that started them."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import process
from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from pathlib import Path


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie answers kill(0) but runs no more.
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"


def test_run_logs_the_command_and_its_output(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    process.run(_python("import sys; print('out'); print('err', file=sys.stderr)"), log=log)
    text = log.read_text()
    assert text.startswith(f"$ {sys.executable} -c ")
    assert "out\n" in text
    assert "err\n" in text


def test_a_failing_command_is_reported_with_exit_code_last_lines_and_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with pytest.raises(StageError) as caught:
        process.run(_python("for i in range(30): print('line', i)\nraise SystemExit(3)"), log=log)
    message = str(caught.value)
    assert "exit code 3" in message
    assert "| line 29" in message
    assert "| line 10" in message
    assert "| line 9\n" not in message
    assert str(log) in message


def test_a_killed_command_names_the_signal(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="killed by SIGKILL"):
        process.run(_python("import os; os.kill(os.getpid(), 9)"), log=tmp_path / "x.log")


def test_a_missing_program_is_a_toolchain_error(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="no-such-program cannot be started"):
        process.run(["no-such-program", "--flag"], log=tmp_path / "x.log")


def test_the_time_limit_stops_the_child_and_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(StageError, match="did not end within 1 s"):
        process.run(_python(code), log=tmp_path / "x.log", timeout_s=1)
    assert not _is_alive(int(pid_file.read_text()))


def test_stop_kills_a_child_that_ignores_sigterm(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    child = process.start(
        _python("import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"),
        log=log,
    )
    while "up\n" not in log.read_text():
        time.sleep(0.01)
    assert process.stop(child, grace_s=0.2) == -signal.SIGKILL


def test_the_environment_given_is_the_whole_environment(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    process.run(
        _python("import os; print('ONLY', sorted(k for k in os.environ if k != 'LC_CTYPE'))"), log=log, env={"A": "1"}
    )
    assert "ONLY ['A']" in log.read_text()
