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
from tests.fakes.processes import has_ended

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
    with pytest.raises(StageError, match=r"did not end within 0\.2 s"):
        process.run(["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"], log=tmp_path / "x.log", timeout_s=0.2)
    assert not _is_alive(int(pid_file.read_text()))


def test_a_zombie_that_nobody_reaps_is_not_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    code = (
        "import os, time\n"
        "group = os.getpgrp()\n"
        "if os.fork() == 0:\n"
        "    os.setpgrp()\n"
        "    zombie = os.fork()\n"
        "    if zombie == 0: os._exit(os.setpgid(0, group) or 0)\n"
        "    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)\n"
        "    print('keeper', os.getpid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    child = process.start(_python(code), log=log)
    while "keeper " not in log.read_text():
        time.sleep(0.01)
    started = time.monotonic()
    assert process.stop(child, grace_s=30) == -signal.SIGTERM
    os.kill(int(log.read_text().split()[-1]), signal.SIGKILL)
    assert time.monotonic() - started < 20


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


def test_a_failure_carries_exit_code_and_last_lines_for_its_caller(tmp_path: Path) -> None:
    with pytest.raises(process.CommandFailedError) as caught:
        process.run(_python("print('no space left on device'); raise SystemExit(9)"), log=tmp_path / "x.log")
    assert caught.value.returncode == 9
    assert caught.value.lines[-1] == "no space left on device"


def test_a_running_command_gives_signs_of_life_with_the_memory_of_its_children(tmp_path: Path) -> None:
    beats: list[process.Beat] = []
    code = (
        "import subprocess, sys\n"
        "hold = 'import time; block = bytearray(64 << 20); block[::4096] = bytes(1 << 14); time.sleep(0.3)'\n"
        "subprocess.run([sys.executable, '-c', hold])\n"
    )
    process.run(_python(code), log=tmp_path / "x.log", on_beat=beats.append, beat_s=0.05)
    assert [beat.elapsed_s for beat in beats] == sorted(beat.elapsed_s for beat in beats)
    assert max(beat.rss_bytes for beat in beats) > 64 << 20


def test_what_a_beat_raises_stops_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"

    def refuse(beat: process.Beat) -> None:
        if pid_file.exists() and pid_file.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(_python(code), log=tmp_path / "x.log", on_beat=refuse, beat_s=0.05)
    assert not _is_alive(int(pid_file.read_text()))


def test_the_time_limit_also_holds_while_beats_are_given(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"did not end within 0\.3 s"):
        process.run(
            _python("import time; time.sleep(60)"),
            log=tmp_path / "x.log",
            timeout_s=0.3,
            on_beat=lambda beat: None,
            beat_s=0.1,
        )


def test_kill_9_of_the_caller_ends_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    inner = f"import os, pathlib, time; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid())); time.sleep(60)"
    outer = (
        "import sys, pathlib\n"
        "from scalellm_trt import process\n"
        f"process.run([sys.executable, '-c', {inner!r}], log=pathlib.Path({str(tmp_path / 'x.log')!r}))\n"
    )
    caller = process.start(_python(outer), log=tmp_path / "outer.log")
    while not pid_file.exists() or not pid_file.read_text():
        time.sleep(0.02)
    caller.kill()
    caller.wait()
    assert has_ended(int(pid_file.read_text()))


def test_output_returns_what_a_command_prints_and_says_why_it_failed() -> None:
    assert process.output(_python("print('seen')"), timeout_s=30) == "seen\n"
    with pytest.raises(StageError, match=r"(?s)exit code 2.*no card"):
        process.output(_python("import sys; print('no card', file=sys.stderr); sys.exit(2)"), timeout_s=30)
    with pytest.raises(ToolchainError, match="no-such-program"):
        process.output(["no-such-program"], timeout_s=30)
