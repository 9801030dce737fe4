"""The clients in the documentation are run as a reader would run them."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import ROOT, Server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration
EXAMPLES = ROOT / "docs" / "examples"
CLIENT = EXAMPLES / "stream.py"
TOKEN_CLIENT = EXAMPLES / "token_ids.py"
MODEL = "smollm2-135m-cpu"
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def _run(*arguments: str, client: Path = CLIENT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, client, *arguments], capture_output=True, text=True, check=False)


def test_it_streams_a_sensible_answer(server: Server) -> None:
    done = _run(MODEL, QUESTION, server.grpc_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


def test_it_ends_with_the_servers_words_when_the_model_is_not_there(server: Server) -> None:
    done = _run("no-such-model", QUESTION, server.grpc_url)
    assert done.returncode != 0
    assert "unknown model: 'no-such-model'" in done.stderr


def test_tokens_go_in_and_tokens_come_out(server: Server) -> None:
    tokenizer = str(server.repository / MODEL / "1" / "engine" / "tokenizer.json")
    done = _run(MODEL, tokenizer, QUESTION, server.grpc_url, client=TOKEN_CLIENT)
    assert (done.returncode, done.stderr) == (0, "")
    ids, text = done.stdout.strip().split("\n", 1)
    assert all(token.isdigit() for token in ids.split())
    assert text == "The capital of France is Paris."


def test_a_prompt_of_too_many_tokens_is_refused_by_name(server: Server) -> None:
    tokenizer = str(server.repository / MODEL / "1" / "engine" / "tokenizer.json")
    done = _run(MODEL, tokenizer, "word " * 3000, server.grpc_url, client=TOKEN_CLIENT)
    assert done.returncode != 0
    assert "input_ids: " in done.stderr
    assert "max_input_len" in done.stderr


def test_an_answer_comes_over_http_too(server: Server) -> None:
    body = json.dumps({"text_input": QUESTION, "max_tokens": 16, "exclude_input_in_output": True}).encode()
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/{MODEL}/generate", body, timeout=60) as response:
        answer = json.load(response)
    assert (answer["text_output"], answer["finish_reason"]) == ("The capital of France is Paris.", "stop")


def test_it_needs_nothing_but_tritonclient_and_numpy() -> None:
    imported = {line.split()[1].split(".")[0] for line in CLIENT.read_text().splitlines() if line.startswith("import ")}
    assert imported == {"queue", "sys", "numpy", "tritonclient"}
