"""Servers with OpenAI's API whose times are known, and the tokenizer to which their word is one token."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmarks.load_generator import write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

__all__ = ["running", "write_tokenizer"]


@contextlib.contextmanager
def running(ttft_ms: float, gap_ms: float) -> Iterator[str]:
    """Run one until the block ends; yield its URL."""
    argv = [sys.executable, "-m", "scripts.benchmarks.sides.timed_server", "0", str(ttft_ms), str(gap_ms)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            assert child.stdout is not None
            port = child.stdout.readline().strip()
            assert port, "the server ended before it listened"
            yield f"http://127.0.0.1:{port}"
        finally:
            child.kill()
