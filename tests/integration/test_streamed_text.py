"""Streamed text is unstreamed text: 510 random requests through gateway and tritonserver, with three tokenizers.

The engine behind them gives tokens as it is told; everything else is what is served.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from scalellm_trt.artefacts.types import TritonModel
from scalellm_trt.backends.runtime_files import files_behind
from scalellm_trt.backends.text_model import TEXT_INPUTS, TEXT_OUTPUTS
from scalellm_trt.gateway.answer_text import AnswerText
from scalellm_trt.gateway.contract import TokenChunk
from scalellm_trt.runtime.settings import ServiceSettings
from scalellm_trt.triton import repository
from tests.fakes import repeating_engine, small_tokenizer
from tests.fakes.gateways import running
from tests.fakes.streamed_requests import TABLES, TOKENIZERS, requests, whole_text
from tests.integration.conftest import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.gateways import RunningGateway

pytestmark = pytest.mark.integration
KINDS = list(TOKENIZERS)
NUM_REQUESTS = 510
QUIET = settings(
    max_examples=NUM_REQUESTS // len(KINDS),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _model(kind: str, directory: Path) -> TritonModel:
    tokenizer = TOKENIZERS[kind]
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    service = ServiceSettings(
        engine="openvino",
        engine_directory="engine",
        vocab_size=tokenizer.get_vocab_size(),
        eos_token_ids=(tokenizer.token_to_id(small_tokenizer.END_TOKENS[kind]),),
        max_batch_size=8,
        max_input_len=1000,
        max_seq_len=2048,
        max_num_tokens=1024,
        kv_cache_tokens=2048,
        response_spacing_ms=0,
    )
    sources = files_behind("hosted_model", "engine_api")
    return TritonModel(
        name=kind,
        backend="python",
        max_batch_size=1,
        inputs=TEXT_INPUTS,
        outputs=TEXT_OUTPUTS,
        parameters={},
        default_model_filename="hosted_model.py",
        source_files={**sources, "engine_openvino.py": Path(repeating_engine.__file__)},
        directories={"engine": directory},
        settings=service.to_json(),
    )


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    directory = tmp_path_factory.mktemp("streamed")
    repository.publish(
        [_model(kind, directory / kind) for kind in KINDS],
        service="streamed",
        recipe="streamed.yaml",
        owner_digest="0" * 64,
        engine_digest="1" * 64,
        root=directory / "triton_repo",
        state_dir=directory / "state",
    )
    with (
        running_server(directory / "triton_repo", directory / "server.log") as server,
        running(directory / "triton_repo", server.grpc_url, directory / "log") as gateway,
    ):
        yield gateway


@pytest.mark.parametrize("kind", KINDS)
def test_through_gateway_and_tritonserver(gateway: RunningGateway, kind: str) -> None:
    with httpx.Client(base_url=gateway.url, timeout=60) as http, ThreadPoolExecutor(1) as pool:

        @QUIET
        @given(drawn=requests(kind))
        def check(drawn: tuple[list[int], list[str]]) -> None:
            ids, stop = drawn
            body = {"model": kind, "prompt": ids, "stop": stop, "max_tokens": 500, "seed": len(ids)}
            whole = pool.submit(http.post, "/v1/completions", json=body)
            streamed = httpx.post(f"{gateway.url}/v1/completions", json={**body, "stream": True})
            events = [json.loads(line[6:]) for line in streamed.text.split("\n") if line.startswith("data: {")]
            text = "".join(event["choices"][0]["text"] for event in events)
            (choice,) = whole.result().json()["choices"]
            assert text == choice["text"] == whole_text(kind, ids, stop)
            assert events[-1]["choices"][0]["finish_reason"] == choice["finish_reason"] == "stop"
            # Whoever cuts a character in two shows a replacement for each half.
            assert text.encode().decode() == text

        check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_through_the_token_path(kind: str, size: int) -> None:
    end_id = TOKENIZERS[kind].token_to_id(small_tokenizer.END_TOKENS[kind])

    def read(ids: list[int], stop: list[str], size: int) -> str:
        answer = AnswerText(TABLES[kind], stop, frozenset([end_id]), 0)
        text = ""
        for start in range(0, len(ids), size):
            piece, is_last = tuple(ids[start : start + size]), start + size >= len(ids)
            delta = answer.take(TokenChunk(index=0, token_ids=piece, finish_reason="stop" if is_last else None))
            text += delta.text
            if delta.finish_reason is not None:
                break
        return text

    @QUIET
    @given(drawn=requests(kind))
    def check(drawn: tuple[list[int], list[str]]) -> None:
        ids, stop = drawn
        assert (
            read([*ids, end_id], stop, size) == read([*ids, end_id], stop, len(ids) + 1) == whole_text(kind, ids, stop)
        )

    check()
