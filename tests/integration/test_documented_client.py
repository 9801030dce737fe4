"""The client in the documentation is run as a reader would run it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ROOT, Server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
CLIENT = ROOT / "docs" / "examples" / "stream.py"
MODEL = "smollm2-135m-cpu"
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CLIENT, *arguments], capture_output=True, text=True, check=False)


def test_it_streams_a_sensible_answer(server: Server) -> None:
    done = _run(MODEL, QUESTION, server.grpc_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


def test_it_ends_with_the_servers_words_when_the_model_is_not_there(server: Server) -> None:
    done = _run("no-such-model", QUESTION, server.grpc_url)
    assert done.returncode != 0
    assert "unknown model: 'no-such-model'" in done.stderr


def test_it_needs_nothing_but_tritonclient_and_numpy(tmp_path: Path) -> None:
    imported = {line.split()[1].split(".")[0] for line in CLIENT.read_text().splitlines() if line.startswith("import ")}
    assert imported == {"queue", "sys", "numpy", "tritonclient"}
