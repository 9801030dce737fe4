"""Streams whose text is known: what clients got of a gateway behind which a server broke."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.benchmarks.sides.breaking_server import Harm


@dataclass(slots=True, kw_only=True)
class Workload:
    """What all streams of a round ask for.

    Attributes:
        prompts: one for each stream.
        expected: what an undisturbed run answered.
        lasts_s: from the moment when all have begun to the end of the undisturbed run.
        allowed_share: of texts that may be others.
    """

    url: str
    model: str
    prompts: Sequence[str]
    tokens: int
    allowed_share: float = 0.0
    expected: list[str] = field(default_factory=list)
    lasts_s: float = 0.0


@dataclass(slots=True)
class Stream:
    """One client's answer."""

    request_id: str
    prompt: str
    error: str = ""
    parts: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.parts)

    def text_before_gap(self) -> str:
        """Return what had come before the longest wait for a token."""
        longest = int(np.argmax(np.diff(self.times_s))) if len(self.times_s) > 1 else 0
        return "".join(self.parts[: longest + 1])

    def gap_s(self) -> float:
        """Return the longest wait for a token."""
        return float(np.diff(self.times_s).max()) if len(self.times_s) > 1 else float("nan")

    async def run(self, workload: Workload) -> None:
        """Take the whole answer."""
        host, _, port = workload.url.removeprefix("http://").rpartition(":")
        asked = {"model": workload.model, "prompt": self.prompt, "max_tokens": workload.tokens}
        body = orjson.dumps({**asked, "temperature": 0, "stream": True, "seed": 1})
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        head += f"X-Request-Id: {self.request_id}\r\n"
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            while line := await reader.readline():
                self._take(line)
        except OSError as error:
            self.error = str(error)
        writer.close()

    def _take(self, line: bytes) -> None:
        if not line.startswith((b"data: {", b"{")):
            return
        value = orjson.loads(line.removeprefix(b"data: "))
        if "error" in value:
            self.error = value["error"]["message"]
        elif value["choices"][0]["text"]:
            self.parts.append(value["choices"][0]["text"])
            self.times_s.append(time.monotonic())


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of all rounds with one harm.

    Attributes:
        num_different: texts that are not those of the undisturbed run; `num_continued_different` of continued streams.
        num_changed: continued streams whose text before the cut is not what it was.
    """

    harm: Harm
    num_streams: int = 0
    num_errors: int = 0
    num_different: int = 0
    num_continued_different: int = 0
    num_changed: int = 0
    gaps_ms: list[float] = field(default_factory=list)
    errors: set[str] = field(default_factory=set)


def judge(outcome: Outcome, streams: Sequence[Stream], workload: Workload, continued: set[str]) -> list[float]:
    """Add a round's streams to the outcome; return the gaps in ms of those that were continued, by their ids."""
    outcome.num_streams += len(streams)
    gaps = []
    for stream, expected in zip(streams, workload.expected, strict=True):
        is_different = stream.text != expected
        outcome.num_different += is_different
        if stream.error:
            outcome.num_errors += 1
            outcome.errors.add(stream.error)
        if stream.request_id in continued:
            gaps.append(stream.gap_s() * 1000)
            outcome.num_continued_different += is_different
            outcome.num_changed += not expected.startswith(stream.text_before_gap())
    outcome.gaps_ms += gaps
    return gaps
