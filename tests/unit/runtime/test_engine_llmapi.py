"""The LLM API as an engine, over a strict stand-in of the library: ids in, ids out, aborts, budgets, import order."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.backends import llmapi_models
from scalellm_trt.runtime import engine_llmapi
from scalellm_trt.runtime.engine_api import InvalidRequestError, UnavailableError
from tests.fakes.pipelines import Collector, request, settings
from tests.fakes.plans import tiny_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.runtime.engine_llmapi import LlmApiEngine

PACKAGE = Path(__file__).parents[2] / "fakes" / "tensorrt_llm_package"


@pytest.fixture
def model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model's files, and the library on the path."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    (tmp_path / "config.json").write_text("{}")
    arguments = llmapi_models.model_arguments(tiny_plan(kv_cache_dtype="fp8"))
    (tmp_path / engine_llmapi.MODEL_FILE).write_text(json.dumps(arguments))
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt_llm"]:
        del sys.modules[name]


@pytest.fixture
def steps() -> list[int]:
    return []


@pytest.fixture
def engine(model_dir: Path, steps: list[int]) -> Iterator[LlmApiEngine]:
    engine = engine_llmapi.create(
        settings(engine="llmapi", max_seq_len=200, kv_cache_tokens=400),
        model_dir,
        on_step=lambda: steps.append(threading.get_ident()),
        log=print,
    )
    yield engine
    engine.close()
    assert engine._llm.is_shut_down
    assert not [thread for thread in threading.enumerate() if thread.name == "engine"]


def test_the_library_gets_the_recipes_limits_and_the_budget_in_bytes(engine: LlmApiEngine, model_dir: Path) -> None:
    arguments = engine._llm.arguments
    assert arguments["model"] == str(model_dir)
    assert (arguments["max_batch_size"], arguments["max_num_tokens"], arguments["max_seq_len"]) == (4, 32, 64)
    assert arguments["skip_tokenizer_init"] is True
    assert dataclasses.asdict(arguments["kv_cache_config"]) == {
        "enable_block_reuse": True,
        "max_tokens": 256,
        "free_gpu_memory_fraction": 0.95,
        "max_gpu_total_bytes": 65536,
        "dtype": "fp8",
        "tokens_per_block": 32,
    }
    assert arguments["scheduler_config"].capacity_scheduler_policy.value == "GUARANTEED_NO_EVICT"


def test_variables_of_an_mpirun_around_the_server_are_gone_before_the_import(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("PMIX_RANK", "0")
    assert engine_llmapi.load(model_dir).arguments["backend"] == "pytorch"


@pytest.mark.parametrize("is_stream", [True, False])
def test_tokens_and_reason_arrive(engine: LlmApiEngine, is_stream: bool) -> None:
    sink = Collector()
    engine.submit(dataclasses.replace(request(4, 5), is_stream=is_stream), sink)
    assert sink.wait().ids() == [14, 15, 16, 17, 18]
    assert sink.chunks[-1].finish_reason == "length"
    assert len(sink.chunks) == (5 if is_stream else 1)


def test_every_end_token_ends_and_none_is_minus_one(engine: LlmApiEngine) -> None:
    sink = Collector()
    engine.submit(request(4, 20, stop_token_ids=frozenset({16, 30})), sink)
    assert sink.wait().ids() == [14, 15]
    assert sink.chunks[-1].finish_reason == "stop"
    engine.submit(request(4, 1), Collector())
    ends = [(params.end_id, params.stop_token_ids) for _, params, _ in engine._llm.requests]
    assert ends[0] == (16, [30])
    time.sleep(0.05)
    assert engine._llm.requests[-1][1].end_id == -1


def test_sampling_is_spelled_out(engine: LlmApiEngine) -> None:
    samplings: list[dict[str, Any]] = [
        {},
        {"temperature": 0.5, "seed": 7},
        {"temperature": 1.0, "top_k": 3, "seed": 2**64 - 1},
    ]
    for sampling in samplings:
        sink = Collector()
        engine.submit(request(4, 1, min_tokens=1, **sampling), sink)
        sink.wait()
    greedy, free, top_k = (params for _, params, _ in engine._llm.requests)
    assert (greedy.top_k, greedy.temperature) == (1, None)
    assert (free.temperature, free.top_p, free.top_k, free.seed) == (0.5, 1.0, None, 7)
    assert (top_k.top_k, top_k.top_p) == (3, None)
    assert greedy.min_tokens == 1


def test_sequences_have_seeds_of_their_own_and_greedy_ones_are_made_once(engine: LlmApiEngine) -> None:
    sink = Collector()
    engine.submit(request(4, 3, num_sequences=2, temperature=1.0, seed=3), sink)
    deadline = time.monotonic() + 30
    while sink.num_over < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert sink.ids(0) != sink.ids(1)
    alone = Collector()
    engine.submit(request(4, 3, temperature=1.0, seed=3), alone)
    assert alone.wait().ids() == sink.ids(0)
    before = len(engine._llm.requests)
    greedy = Collector()
    engine.submit(request(4, 3, num_sequences=2), greedy)
    greedy.wait()
    assert greedy.ids(0) == greedy.ids(1) == [14, 15, 16]
    assert len(engine._llm.requests) == before + 1


def test_a_sink_that_has_enough_frees_the_place(engine: LlmApiEngine) -> None:
    sink = Collector(stop_after=2)
    engine.submit(request(4, 100), sink)
    sink.wait()
    time.sleep(0.05)
    assert len(sink.ids()) == 2
    assert not engine._live


def test_a_cancelled_request_is_aborted_and_gets_no_more(engine: LlmApiEngine) -> None:
    sink = Collector()
    generation = engine.submit(request(4, 150), sink)
    while not sink.chunks:
        time.sleep(0.002)
    generation.cancel()
    deadline = time.monotonic() + 30
    while not engine._llm.events:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert engine._llm.events[0].startswith("aborted")
    assert sink.chunks[-1].finish_reason is None


def test_clients_are_looked_after_in_another_thread(engine: LlmApiEngine, steps: list[int]) -> None:
    deadline = time.monotonic() + 30
    while not steps:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert engine._thread.ident not in steps


def test_a_full_queue_and_a_bad_request_are_refused(engine: LlmApiEngine) -> None:
    with pytest.raises(InvalidRequestError, match="repetition_penalty: TensorRT-LLM's Torch sampler"):
        engine.submit(request(4, 1, repetition_penalty=1.5), Collector())
    with pytest.raises(InvalidRequestError, match="max_tokens"):
        engine.submit(request(4, 1000), Collector())
    sinks = [Collector() for _ in range(6)]
    for sink in sinks:
        engine.submit(request(4, 100), sink)
    with pytest.raises(UnavailableError, match="max_queue_size: 4 requests are waiting already"):
        engine.submit(request(4, 1), Collector())


def test_a_failure_of_the_library_is_an_error_of_the_request(engine: LlmApiEngine) -> None:
    engine._llm.fault = RuntimeError("CUDA error")
    sink = Collector()
    engine.submit(request(4, 3), sink)
    assert sink.wait().error == "the engine failed: CUDA error"
    engine._llm.fault = None
    good = Collector()
    engine.submit(request(4, 3), good)
    assert good.wait().ids() == [14, 15, 16]


def test_unloading_fails_live_requests(engine: LlmApiEngine) -> None:
    sink = Collector()
    engine.submit(request(4, 150), sink)
    engine.close()
    assert sink.error == "the model is being unloaded"
    with pytest.raises(UnavailableError):
        engine.submit(request(4, 1), Collector())


def test_every_input_that_is_refused_is_one_of_the_contract() -> None:
    from scalellm_trt.runtime import signature

    assert set(engine_llmapi.UNSUPPORTED_INPUTS) <= {tensor.name for tensor in signature.INPUTS}


def test_models_are_python_models_that_hold_the_files_one_for_each_service(tmp_path: Path) -> None:
    plan: Any = tiny_plan(services=2, backend="llmapi", toolchain="tensorrt-llm-1.3")
    models = llmapi_models.models(plan, tmp_path)
    assert [(model.name, model.backend, model.max_batch_size) for model in models] == [
        ("tiny-1", "python", 1),
        ("tiny-2", "python", 1),
    ]
    for model in models:
        assert model.directories == {"engine": tmp_path}
        assert model.settings["engine"] == "llmapi"
        assert {"engine_llmapi.py", "hosted_model.py"} < model.source_files.keys()
