"""The models of a TensorRT-LLM service: every field of the C++ backend's contract, in both generations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.backends import tensorrt_llm_models
from scalellm_trt.errors import ArtefactError
from scalellm_trt.memory import MemoryBudget, MemoryItem
from scalellm_trt.runtime import settings
from scalellm_trt.triton import model_config
from tests.fakes.engine_models import gpu_plan, models_of, write_engine

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import Engine, TritonModel

GOLDENS = Path(__file__).parents[2] / "goldens"
ROOT = Path("/models")
TOOLCHAINS = {"1.x": "tensorrt-llm-1.2.1", "0.13": "tensorrt-llm-0.13.0"}
REQUIRED_PARAMETERS = (
    "gpt_model_type",
    "gpt_model_path",
    "tokenizer_dir",
    "xgrammar_tokenizer_info_path",
    "guided_decoding_backend",
)


def parsed(model: TritonModel) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(model_config.render(model, ROOT), model_config_pb2.ModelConfig())


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return write_engine(tmp_path / "engine")


@pytest.mark.parametrize("contract", TOOLCHAINS)
def test_the_text_of_the_engines_config_is_the_golden_text(engine: Engine, contract: str) -> None:
    [model, _] = models_of(gpu_plan(toolchain=TOOLCHAINS[contract]), engine)
    assert model_config.render(model, ROOT) == (GOLDENS / f"config_engine_{contract}.pbtxt").read_text()


def test_one_service_is_an_engine_and_a_text_model_in_front_of_it(engine: Engine) -> None:
    models = models_of(gpu_plan(), engine)
    assert [(model.name, model.backend) for model in models] == [("llama_engine", "tensorrtllm"), ("llama", "python")]
    text = settings.from_json(dict(models[1].settings))
    assert (text.engine, text.engine_model, text.engine_contract) == ("tensorrt_llm", "llama_engine", "1.x")
    assert text.eos_token_ids == (2, 3, 7)
    assert {"hosted_model.py", "engine_tensorrt_llm.py", "inner_request.py"} < models[1].source_files.keys()
    assert "engine_openvino.py" not in models[1].source_files
    assert models[1].source_files["engine/tokenizer.json"] == engine.directory / "tokenizer.json"


def test_three_services_share_one_engine_directory_and_have_a_budget_each(engine: Engine) -> None:
    models = models_of(gpu_plan(services=3), engine)
    assert [model.name for model in models] == [
        *("llama-1_engine", "llama-1", "llama-2_engine", "llama-2", "llama-3_engine", "llama-3")
    ]
    engines = [model for model in models if model.backend == "tensorrtllm"]
    assert [list(model.directories.values()) for model in engines] == [[engine.directory], [], []]
    for model in engines:
        parameters = parsed(model).parameters
        assert parameters["gpt_model_path"].string_value == "/models/llama-1_engine/1/engine"
        assert parameters["max_tokens_in_paged_kv_cache"].string_value == "256"
        assert parameters["kv_cache_free_gpu_mem_fraction"].string_value == "0.95"
    assert [model.settings["engine_model"] for model in models[1::2]] == [model.name for model in engines]


def test_every_required_parameter_is_there_and_nothing_that_must_be_left_out(engine: Engine) -> None:
    [model, _] = models_of(gpu_plan(), engine)
    config = parsed(model)
    assert set(REQUIRED_PARAMETERS) <= set(config.parameters)
    assert not {"lora_prefetch_dir", "encoder_model_path"} & set(config.parameters)
    assert config.parameters["cancellation_check_period_ms"].string_value == "5"
    assert config.parameters["exclude_input_in_output"].string_value == "true"


def test_the_old_generation_has_its_own_names_of_inputs_and_parameters(engine: Engine) -> None:
    new, old = (parsed(models_of(gpu_plan(toolchain=TOOLCHAINS[contract]), engine)[0]) for contract in TOOLCHAINS)
    new_inputs, old_inputs = ({tensor.name for tensor in config.input} for config in (new, old))
    assert {"min_length", "random_seed"} <= old_inputs - new_inputs
    assert {"min_tokens", "seed", "num_return_sequences", "exclude_input_in_output"} <= new_inputs - old_inputs
    assert {"multiBlockMode", "enableContextFMHAFP32Acc"} <= set(old.parameters) - set(new.parameters)
    assert {"multi_block_mode", "tokenizer_dir", "guided_decoding_backend"} <= set(new.parameters) - set(old.parameters)
    assert not next(tensor for tensor in old.input if tensor.name == "input_ids").optional


@pytest.mark.parametrize("contract", TOOLCHAINS)
def test_shapes_and_flags_are_those_that_the_backend_wants(engine: Engine, contract: str) -> None:
    config = parsed(models_of(gpu_plan(toolchain=TOOLCHAINS[contract]), engine)[0])
    tensors = {tensor.name: tensor for tensor in config.input}
    # The presence of an empty reshape is what counts, and only a message field has one.
    assert tensors["input_lengths"].HasField("reshape")
    assert not tensors["input_ids"].HasField("reshape")
    assert list(tensors["stop_words_list"].dims) == [2, -1]
    assert tensors["stop_words_list"].allow_ragged_batch
    assert [name for name, tensor in tensors.items() if not tensor.optional] == [
        *(["input_ids"] if contract == "0.13" else []),
        *("input_lengths", "request_output_len"),
    ]
    if contract == "1.x":
        plain = {
            name for name, tensor in tensors.items() if list(tensor.dims) == [1] and not tensor.HasField("reshape")
        }
        assert plain == {
            *("mrope_position_deltas", "skip_cross_attn_blocks", "retention_decode_priority"),
            *("retention_decode_duration_ms", "guided_decoding_guide_type", "guided_decoding_guide"),
            *("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size"),
        }
        assert len(tensors) == 62
        assert len(config.output) == 21


@pytest.mark.parametrize(("logits", "data_type"), [("float16", 10), ("float32", 11), ("bfloat16", 14)])
def test_the_type_of_the_logits_is_that_of_the_engine(tmp_path: Path, logits: str, data_type: int) -> None:
    engine = write_engine(tmp_path / "engine", logits)
    config = parsed(models_of(gpu_plan(), engine)[0])
    types = {tensor.name: tensor.data_type for tensor in (*config.input, *config.output)}
    assert {types[name] for name in ("draft_logits", "context_logits", "generation_logits")} == {data_type}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pretrained_config": {"logits_dtype": "int4"}}'])
def test_an_engine_that_does_not_say_its_logits_type_is_refused_with_the_next_step(tmp_path: Path, text: str) -> None:
    engine = write_engine(tmp_path / "engine")
    (engine.directory / "config.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"config\.json: does not say what type .*\n.*--force compile"):
        models_of(gpu_plan(), engine)


def test_the_queue_of_the_engine_is_longer_than_that_of_the_text_model_in_front(engine: Engine) -> None:
    [model, text] = models_of(gpu_plan(), engine)
    queue = parsed(model).dynamic_batching.default_queue_policy.max_queue_size
    assert queue == 8 + 4  # max_queue_size + max_batch_size
    assert text.settings["max_queue_size"] == 8


@pytest.mark.parametrize(
    ("kv_cache_tokens", "message"),
    [(250, "250 is not a multiple of 32"), (64, "64 tokens are too few for one sequence of max_seq_len (64)")],
)
def test_a_budget_that_the_engine_would_silently_get_wrong_is_a_problem(kv_cache_tokens: int, message: str) -> None:
    import dataclasses

    plan = gpu_plan()
    serving = dataclasses.replace(plan.serving, kv_cache_tokens=kv_cache_tokens)
    [problem] = tensorrt_llm_models.problems(dataclasses.replace(plan, serving=serving))
    assert problem.key == "serving.kv_cache_tokens"
    assert problem.message.startswith(message)
    assert tensorrt_llm_models.problems(plan) == []


@pytest.mark.parametrize(("free_beside_the_pool", "fraction"), [(65536, 0.95), (2000, 0.98), (0, 0.99)])
def test_the_fraction_lets_the_last_service_have_its_whole_budget(free_beside_the_pool: int, fraction: float) -> None:
    pool = gpu_plan().serving.kv_cache_bytes
    items = (
        MemoryItem(name="weights", num_bytes=100, formula=""),
        MemoryItem(name="KV cache", num_bytes=pool, formula=""),
    )
    available = 100 + pool + free_beside_the_pool
    budget = MemoryBudget(stage="load", place="device", items=items, available_bytes=available)
    assert tensorrt_llm_models.free_memory_fraction(gpu_plan(budgets=(budget,))) == fraction
