"""A target's way in; who asks and who reads, out. Each kind's libraries are imported only where it is used."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from scalellm_trt.bench.tokens import ServedTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from scalellm_trt.bench.targets.raw import Asker, Reader
    from scalellm_trt.bench.targets.target import Way


def asker_and_reader(way: Way, tokenizer: Callable[[], ServedTokenizer]) -> tuple[Asker, Reader]:
    """Return both ends of a target, inside of the event loop that will use the first.

    Raises:
        ScaleLLMError: an engine for this process cannot be loaded.
    """
    if way.kind == "openai":
        from scalellm_trt.bench.targets.http_client import HttpClient
        from scalellm_trt.bench.targets.openai import OpenAiAsker

        return OpenAiAsker(way, HttpClient(way.url, way.ca_file)), reader(way, tokenizer)
    if way.kind == "in-process":
        from scalellm_trt.bench.targets import in_process

        assert way.engine is not None
        return in_process.EngineAsker(way, *in_process.load(way.engine)), reader(way, tokenizer)
    from scalellm_trt.bench.targets.grpc_client import GrpcClient
    from scalellm_trt.bench.targets.triton import TritonAsker

    return TritonAsker(way, GrpcClient(way.url)), reader(way, tokenizer)


def reader(way: Way, tokenizer: Callable[[], ServedTokenizer]) -> Reader:
    """Return who reads the answers of a target."""
    if way.kind == "openai":
        from scalellm_trt.bench.targets import openai

        return openai.read
    from scalellm_trt.bench.targets import in_process, triton

    def decode(ids: Sequence[int]) -> str:
        return tokenizer().decode(ids)

    return in_process.reader(decode) if way.kind == "in-process" else triton.reader(decode)


def tokenizer_of(directory: Path) -> Callable[[], ServedTokenizer]:
    """Return what loads a tokenizer when it is first needed, and keeps it."""
    return functools.cache(lambda: ServedTokenizer(directory))
