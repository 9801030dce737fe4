"""Ask a server everything, print a table, and exit with 8 if it fails a check."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import sys
from pathlib import Path

import httpx
import openai

from scripts.conformance.registry import Outcome, run
from scripts.conformance.target import Target

GROUPS = ("models", "chat", "streams", "choices", "completions", "fields", "refusals", "clients")
EXIT_FAILED = 8
TIMEOUT_S = 120.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.conformance", description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:2345/v1", help="with /v1")
    parser.add_argument("--model", help="default: the first that the server lists")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the outcome of every check here")
    options = parser.parse_args(argv)
    for group in GROUPS:
        importlib.import_module(f"scripts.conformance.{group}")
    key = os.environ.get("OPENAI_API_KEY", "none")
    headers = {"authorization": f"Bearer {key}"}
    with (
        openai.OpenAI(base_url=options.base_url, api_key=key, max_retries=0, timeout=TIMEOUT_S) as client,
        httpx.Client(base_url=options.base_url, headers=headers, timeout=TIMEOUT_S) as http,
    ):
        model = options.model or client.models.list().data[0].id
        outcomes = []
        for outcome in run(Target(client=client, http=http, model=model)):
            outcomes.append(outcome)
            print(_line(outcome), flush=True)
    num_failed = sum(outcome.problem is not None for outcome in outcomes)
    print(f"{len(outcomes)} checks: {len(outcomes) - num_failed} passed, {num_failed} failed")
    if options.json is not None:
        options.json.write_text(_report(options.base_url, model, outcomes), encoding="utf-8")
    return EXIT_FAILED if num_failed else 0


def _line(outcome: Outcome) -> str:
    verdict = "ok" if outcome.problem is None else "FAIL"
    problem = "" if outcome.problem is None else f"  {' '.join(outcome.problem.split())[:160]}"
    return f"{verdict:4}  {outcome.group:11}  {outcome.name}{problem}"


def _report(base_url: str, model: str, outcomes: list[Outcome]) -> str:
    report = {
        "base_url": base_url,
        "model": model,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "openai_client": openai.__version__,
        "num_checks": len(outcomes),
        "num_failed": sum(outcome.problem is not None for outcome in outcomes),
        "checks": [outcome.to_json() for outcome in outcomes],
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
