"""How often does a request give the same text again: alone, and among others? Asks a running tritonserver.

    python scripts/benchmarks/determinism.py MODEL [MODEL …] [--url 127.0.0.1:8001] [--requests 32] [--max-tokens 64]

Each of N prompts, excerpts of the bundled evaluation text, is asked three times with the same parameters: alone, alone
again, and at the same moment as the N - 1 others. Once greedy, once sampled with temperature 0.8 and a seed of its own.

    repeated = answers alone that equal the first answer alone, of N
    together = answers among N requests that equal the first answer alone, of N
    parts at = median number of characters that an answer among others shares with the one alone, where they differ
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import resources
from typing import TYPE_CHECKING, Literal

from scalellm_trt.triton import client, served

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT_CHARACTERS = 200
TEMPERATURE = 0.8
How = Literal["greedy", "sampled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What one model did with one way to choose tokens."""

    model: str
    how: How
    num_requests: int
    num_repeated: int
    num_together: int
    parts_at: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    prompts = excerpts(options.requests)
    print_line = "{:<28} {:<8} {:>9} {:>9} {:>9}".format
    if not options.json:
        print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(f"{options.requests} requests, max_tokens {options.max_tokens}")
        print(print_line("model", "how", "repeated", "together", "parts at"))
    for model in options.models:
        served.text_model(options.url, model)
        for how in ("greedy", "sampled"):
            found = measure(options.url, model, prompts, how, options.max_tokens)
            if options.json:
                print(json.dumps(asdict(found)), flush=True)
                continue
            shares = [f"{count}/{found.num_requests}" for count in (found.num_repeated, found.num_together)]
            parts_at = "-" if found.parts_at is None else f"{found.parts_at:.0f}"
            print(print_line(model, how, *shares, parts_at), flush=True)


def excerpts(num_prompts: int) -> list[str]:
    """Return different beginnings of text, so that no two requests have the same KV cache."""
    text = " ".join(resources.files("scalellm_trt").joinpath("data/evaluation.txt").read_text("utf-8").split())
    distance = (len(text) - PROMPT_CHARACTERS) // num_prompts
    return [text[index * distance :][:PROMPT_CHARACTERS] for index in range(num_prompts)]


def measure(url: str, model: str, prompts: Sequence[str], how: How, max_tokens: int) -> Agreement:
    """Ask every prompt alone, alone again, and together."""

    def ask(index: int) -> str:
        params = client.TextParams(
            max_tokens=max_tokens,
            temperature=None if how == "greedy" else TEMPERATURE,
            seed=None if how == "greedy" else index,
        )
        return "".join(chunk.text for chunk in client.stream(url, model, prompts[index], params))

    indices = range(len(prompts))
    alone = [ask(index) for index in indices]
    again = [ask(index) for index in indices]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(ask, indices))
    shared = [num_shared(*pair) for pair in zip(alone, together, strict=True) if pair[0] != pair[1]]
    return Agreement(
        model=model,
        how=how,
        num_requests=len(prompts),
        num_repeated=sum(map(str.__eq__, alone, again)),
        num_together=len(prompts) - len(shared),
        parts_at=statistics.median(shared) if shared else None,
    )


def num_shared(left: str, right: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((index for index, pair in pairs if pair[0] != pair[1]), min(len(left), len(right)))


if __name__ == "__main__":
    main()
