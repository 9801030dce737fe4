"""A target's way in; who asks and who reads, out. Each kind's libraries are imported only where it is used."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from scalellm_trt.bench.tokens import ServedTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scalellm_trt.bench.targets.raw import Asker, Reader
    from scalellm_trt.bench.targets.target import Way


def asker_and_reader(way: Way) -> tuple[Asker, Reader]:
    """Return both ends of a target, inside of the event loop that will use the first."""
    from scalellm_trt.bench.targets.http_client import HttpClient
    from scalellm_trt.bench.targets.openai import OpenAiAsker

    return OpenAiAsker(way, HttpClient(way.url, way.ca_file)), reader(way)


def reader(way: Way) -> Reader:
    """Return who reads the answers of a target."""
    from scalellm_trt.bench.targets import openai

    return openai.read


def tokenizer_of(directory: Path) -> Callable[[], ServedTokenizer]:
    """Return what loads a tokenizer when it is first needed, and keeps it."""
    return functools.cache(lambda: ServedTokenizer(directory))
