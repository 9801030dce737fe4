"""`infer`: ask a served text model, and print its answer as it comes."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.errors import ArtefactError, ServerNotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scalellm_trt.triton.client import TextChunk

MAX_INT32 = 2**31 - 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(infer)


def infer(
    prompt: Annotated[str, typer.Argument(help="What to ask, or what to continue with --raw; - reads stdin.")],
    model: Annotated[str | None, typer.Option(help="The text model; the only one where this is left out.")] = None,
    url: Annotated[str, typer.Option(help="gRPC address of the server, host:port.")] = "127.0.0.1:8001",
    raw: Annotated[bool, typer.Option("--raw", help="Send the prompt as it is, without the chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="A system message before the prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=MAX_INT32, help="Most tokens of the answer.")] = 256,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy, the model's default.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, max=MAX_INT32, help="Sample from this many tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Sample from this probability mass.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**64 - 1, help="The same seed, the same answer.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given again.")] = None,
    repository: Annotated[
        Path, typer.Option(help="Where the model's chat template is read: the repository that is served.")
    ] = Path("triton_repo"),
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the server to become ready.")] = 0.0,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest silence of the model, in seconds.")] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object when the answer is complete.")] = False,
) -> None:
    """Stream a model's answer over gRPC. Ctrl-C cancels the request on the server."""
    from scalellm_trt.triton import client, served

    served.wait_ready(url, wait)
    found = served.text_model(url, model)
    params = client.TextParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop_words=tuple(stop or ()),
    )
    text = typer.get_text_stream("stdin").read() if prompt == "-" else prompt
    if not raw:
        text = as_chat(repository / found.name, text, system)
    # Closing cancels: without it an interrupt would leave the request running on the server.
    with closing(client.stream(url, found.name, text, params, declared=found.inputs, timeout_s=timeout)) as chunks:
        if as_json:
            _print_json(found.name, chunks)
        else:
            _print_stream(chunks)


def as_chat(model_dir: Path, prompt: str, system: str | None) -> str:
    """Return the prompt in the chat template of the model at `model_dir`.

    Raises:
        ArtefactError: there is no template.
    """
    from scalellm_trt.triton import chat_template

    messages = [*([] if system is None else [("system", system)]), ("user", prompt)]
    # Python 3.10 finds files too by a pattern that ends in a slash.
    for directory in sorted(path for path in model_dir.glob("1/*") if path.is_dir()):
        template = chat_template.load(directory)
        if template is not None:
            return template.render([{"role": role, "content": content} for role, content in messages])
    message = f"{model_dir}: no chat template for this model"
    hint = "Send the prompt as it is with --raw, or name the repository that the server serves with --repository."
    raise ArtefactError(message, hint=hint)


def _print_stream(chunks: Iterator[TextChunk]) -> None:
    answer = Answer()
    for chunk in answer.watch(chunks):
        print(chunk.text, end="", flush=True)
    if answer.text and not answer.text.endswith("\n"):
        print(flush=True)
    if answer.summary:
        print(answer.summary, file=sys.stderr)


def _print_json(model: str, chunks: Iterator[TextChunk]) -> None:
    answer = Answer()
    for _ in answer.watch(chunks):
        pass
    if not answer.chunks:
        message = f"{model}: ended without an answer"
        raise ServerNotReadyError(message, hint="Look at the server's log.")
    body = {
        "model": model,
        "text": answer.text,
        "finish_reason": next((chunk.finish_reason for chunk in reversed(answer.chunks) if chunk.finish_reason), None),
        "num_input_tokens": answer.num_input_tokens,
        "num_output_tokens": answer.num_output_tokens,
        "ttft_ms": None if answer.ttft_s is None else round(answer.ttft_s * 1000, 3),
        "e2e_latency_ms": round(answer.e2e_latency_s * 1000, 3),
    }
    print(json.dumps(body, ensure_ascii=False))


class Answer:
    """What came of a request, and when."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin to count now; `now` is a clock in seconds."""
        self._now = now
        self._started = now()
        self.chunks: list[TextChunk] = []
        self.ttft_s: float | None = None
        self.e2e_latency_s = 0.0

    def watch(self, chunks: Iterator[TextChunk]) -> Iterator[TextChunk]:
        """Pass the chunks on and take note of them."""
        for chunk in chunks:
            self.e2e_latency_s = self._now() - self._started
            if self.ttft_s is None and chunk.text:
                self.ttft_s = self.e2e_latency_s
            self.chunks.append(chunk)
            yield chunk

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def num_input_tokens(self) -> int | None:
        """Tokens of the prompt; None where the model does not say."""
        return next((chunk.num_input_tokens for chunk in self.chunks if chunk.num_input_tokens is not None), None)

    @property
    def num_output_tokens(self) -> int | None:
        """New tokens of all chunks, each of which counts its own; None where the model does not say."""
        counts = [chunk.num_output_tokens for chunk in self.chunks if chunk.num_output_tokens is not None]
        return sum(counts) if counts else None

    @property
    def summary(self) -> str:
        """The answer's speed in a line for people; empty where there is none to tell."""
        if self.ttft_s is None or self.num_output_tokens is None:
            return ""
        plural = "" if self.num_output_tokens == 1 else "s"
        line = f"[{self.num_output_tokens} token{plural}, the first after {self.ttft_s * 1000:.0f} ms"
        if self.num_output_tokens > 1 and self.e2e_latency_s > self.ttft_s:
            rate = (self.num_output_tokens - 1) / (self.e2e_latency_s - self.ttft_s)
            line += f", then {rate:.0f} tokens/s"
        return f"{line}]"
