"""guidellm (PyPI) as a client: an independent opinion of a server's times.

python -m venv DIR && DIR/bin/pip install guidellm==0.8.1        --guidellm DIR/bin/guidellm
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TIMEOUT_S = 300
NUM_PROMPTS = 300
WORDS = "a question that is about as long as one that somebody would ask of a model, and has no other purpose " * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """What guidellm says of the requests that succeeded, each in ms.

    Attributes:
        inter_token_ms: (latency - TTFT) / (tokens - 1), which this project calls time between tokens.
        per_output_token_ms: latency / tokens: its `time_per_output_token_ms`.
    """

    ttft_ms: Sequence[float]
    inter_token_ms: Sequence[float]
    per_output_token_ms: Sequence[float]


def measure(program: str, url: str, model: str, tokenizer: Path, streams: int, requests: int, tokens: int) -> Times:
    """Let it ask `requests` times for answers of `tokens`, `streams` at a time; files go beside the tokenizer."""
    prompts, output = tokenizer / "prompts.jsonl", tokenizer / f"guidellm-{streams}.json"
    lines = [json.dumps({"prompt": f"{n}: {WORDS}", "output_tokens_count": tokens}) for n in range(NUM_PROMPTS)]
    prompts.write_text("\n".join(lines) + "\n")
    argv = [program, "run", "--backend", f"kind=openai_http,target={url},model={model}"]
    argv += ["--profile", f"kind=concurrent,streams={streams}"]
    argv += ["--constraint", f"kind=max_requests,count={requests}"]
    argv += ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}"]
    argv += ["--data", f"kind=json_file,path={prompts}", "--output", f"kind=json,path={output}", "--disable-console"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode or not output.is_file():
        message = f"{program} ended with {done.returncode}: {(done.stderr or done.stdout)[-1000:]}"
        raise SystemExit(message)
    asked = json.loads(output.read_text())["benchmarks"][0]["requests"]
    if asked["errored"] or len(asked["successful"]) != requests:
        message = f"{program}: {len(asked['successful'])} of {requests} requests succeeded"
        raise SystemExit(message)

    def each(key: str) -> list[float]:
        return [float(request[key]) for request in asked["successful"]]

    return Times(
        ttft_ms=each("time_to_first_token_ms"),
        inter_token_ms=each("inter_token_latency_ms"),
        per_output_token_ms=each("time_per_output_token_ms"),
    )
