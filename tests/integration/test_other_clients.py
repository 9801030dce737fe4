"""LangChain and Pydantic AI run unchanged against the gateway in front of the served model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.gateways import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.gateways import RunningGateway
    from tests.integration.conftest import Server

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-cpu"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with running(server.repository, server.grpc_url, tmp_path_factory.mktemp("gateway") / "log") as gateway:
        yield gateway


def _run(gateway: RunningGateway, name: str, package: str) -> Any:
    pytest.importorskip(package, reason=f"{package} is not installed (extra dev)")
    argv = [sys.executable, "-m", "tests.fakes.other_clients", name, f"{gateway.url}/v1", MODEL]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_langchain_chats(gateway: RunningGateway) -> None:
    found = _run(gateway, "langchain_chat", "langchain_openai")
    assert (found["text"], found["tokens"], found["finish_reason"]) == (ANSWER, [37, 8], "stop")
    assert "Paris" in found["streamed"]
    assert found["num_parts"] > 3
    assert found["batch"] == [ANSWER] * 3
    assert found["again"]
    assert found["stopped"] == "The "


def test_langchain_completes_several_texts_at_once(gateway: RunningGateway) -> None:
    found = _run(gateway, "langchain_completion", "langchain_openai")
    assert all(found["together"])
    assert found["together"] == found["apart"]
    assert found["streamed"] == found["together"][0]


def test_pydantic_ai_runs_an_agent(gateway: RunningGateway) -> None:
    found = _run(gateway, "pydantic_ai", "pydantic_ai")
    assert (found["text"], found["tokens"], found["streamed"]) == (ANSWER, [37, 8], ANSWER)
    assert found["again"]
