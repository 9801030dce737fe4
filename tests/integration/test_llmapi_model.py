"""The text model of backend `llmapi` in the real tritonserver, over a strict stand-in of TensorRT-LLM's library."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.backends import llmapi_models
from scalellm_trt.runtime.engine_llmapi import MODEL_FILE
from scalellm_trt.triton import binary, launch, measured, published_engines, repository, server, serving
from tests.fakes import engine_models, small_tokenizer
from tests.integration.conftest import Server
from tests.integration.test_text_contract import Answer
from tests.integration.test_triton_server import options_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

    from scalellm_trt.plan import Plan

pytestmark = pytest.mark.integration

# The wheel's python stub ignores PYTHONPATH; the directory of a model's version is searched for modules.
LIBRARY = Path(__file__).parents[1] / "fakes" / "tensorrt_llm_package" / "tensorrt_llm"


def llmapi_plan() -> Plan:
    plan = engine_models.gpu_plan(name="chat", backend="llmapi", toolchain="llmapi-1.2.1", services=2)
    limits = dataclasses.replace(plan.limits, max_seq_len=250, max_input_len=100)
    return dataclasses.replace(plan, limits=limits, spec=dataclasses.replace(plan.spec, vocab_size=300))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Tokenizer]]:
    project = tmp_path_factory.mktemp("llmapi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMPI_COMM_WORLD_SIZE", "1")  # the stand-in refuses to be imported into another job
        yield from serve(project)


def serve(project: Path) -> Iterator[tuple[Server, Tokenizer]]:
    plan, engine, root = llmapi_plan(), project / "engine", project / "triton_repo"
    tokenizer = small_tokenizer.write(engine)
    (engine / "config.json").write_text("{}")
    (engine / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    (engine / MODEL_FILE).write_text(json.dumps(llmapi_models.model_arguments(plan)))
    models = [
        dataclasses.replace(model, directories={**model.directories, LIBRARY.name: LIBRARY})
        for model in llmapi_models.models(plan, engine)
    ]
    repository.publish(
        models,
        service=plan.name,
        recipe="recipes/chat.yaml",
        owner_digest="x",
        engine_digest="y",
        root=root,
        state_dir=repository.state_dir_for(root, project / "builds"),
    )
    log = project / "server.log"
    triton, options = binary.find(), options_for(root)
    engines = published_engines.find(root)
    how = launch.plan(triton, options, engines, launch.choose_mode(engines, wants_orchestrator=False), num_gpus=1)
    with server.start(triton, options, log=log, launch=how) as started:
        endpoint = started.wait_ready(60)
        assert endpoint.model_names == ("chat-1", "chat-2")
        yield (
            Server(
                grpc_url=endpoint.grpc_address,
                http_url=endpoint.http_address,
                metrics_url=endpoint.metrics_address,
                pid=endpoint.pid,
                repository=root,
                log=log,
            ),
            tokenizer,
        )


def counted(first: int, num_tokens: int) -> list[int]:
    """What the stand-in answers greedily to a prompt that ends with `first`."""
    return [(first + step) % 300 for step in range(1, num_tokens + 1)]


@pytest.mark.parametrize("service", ["chat-1", "chat-2"])
def test_an_answer_is_streamed_as_text_and_whole(running: tuple[Server, Tokenizer], service: str) -> None:
    server, tokenizer = running
    prompt = tokenizer.encode("the").ids
    expected = tokenizer.decode(counted(prompt[-1], 20))
    inputs = {"text_input": b"the", "max_tokens": 20, "exclude_input_in_output": True}
    streamed = Answer(server, service, stream=True, **inputs).all()
    whole = Answer(server, service, stream=False, **inputs).all()
    assert (streamed.error, whole.error) == (None, None)
    for answer in (streamed, whole):
        assert "".join(response["text_output"][0].decode() for response in answer.responses) == expected
        assert answer.responses[-1]["finish_reason"] == [b"length"]
    assert len(whole.responses) == 1


def test_ids_come_back_for_ids_and_an_end_token_of_the_model_ends_them(running: tuple[Server, Tokenizer]) -> None:
    server, _ = running
    answer = Answer(server, "chat-1", input_ids=[3, 4], max_tokens=50, exclude_input_in_output=True).all()
    assert answer.responses[-1]["output_ids"] == [[5, 6]]
    assert answer.responses[-1]["finish_reason"] == [b"stop"]


def test_what_the_library_cannot_do_is_refused_by_name(running: tuple[Server, Tokenizer]) -> None:
    server, _ = running
    for name, value in (("repetition_penalty", 1.3), ("bad_words", "x"), ("return_log_probs", True)):
        answer = Answer(server, "chat-1", input_ids=[30, 40], max_tokens=4, **{name: value}).all()
        assert answer.error is not None
        assert f"{name}: " in answer.error
    assert Answer(server, "chat-1", input_ids=[30, 40], max_tokens=4).all().error is None


def test_a_client_that_leaves_gives_its_place_up(running: tuple[Server, Tokenizer]) -> None:
    server, _ = running
    started = [Answer(server, "chat-1", input_ids=[8, 20], max_tokens=200, stream=True) for _ in range(8)]
    for answer in started:
        assert answer.next()
    for answer in started:
        answer.cancel()
    deadline = time.monotonic() + 20
    while "aborted after" not in server.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "aborted after" in server.log.read_text()
    assert Answer(server, "chat-1", input_ids=[30, 40], max_tokens=4).all().error is None


def test_what_the_library_logs_while_it_loads_is_kept_for_the_next_plan(
    running: tuple[Server, Tokenizer], tmp_path: Path
) -> None:
    server, _ = running
    [path] = serving.record(published_engines.find(server.repository), server.log, tmp_path)
    found = measured.read(path)
    tokens = llmapi_plan().serving.kv_cache_tokens
    assert {name: each.kv_cache_tokens for name, each in found.items()} == {"chat-1": tokens, "chat-2": tokens}
    assert all(each.engine_bytes and each.execution_context_bytes for each in found.values())
