"""A plan and its compiled engine in, the Triton models of its services out: for each the C++ engine and a text model.

`services: 1` gives NAME and NAME_engine; `services: 3` gives NAME-1, NAME-1_engine, …, NAME-3_engine: three executors
with a KV budget each, over one engine directory, which lies in the first of them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts.types import TritonModel
from scalellm_trt.backends import tensorrt_llm_contract as contracts
from scalellm_trt.backends.runtime_files import files_behind
from scalellm_trt.backends.text_model import ENTRY_MODULE, TEXT_INPUTS, TEXT_OUTPUTS, eos_token_ids, planned_settings
from scalellm_trt.checkpoint.tokenizer_files import TOKENIZER_FILES
from scalellm_trt.errors import ArtefactError, Problem
from scalellm_trt.memory import LARGEST_FREE_PERCENT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.artefacts.types import Engine, TritonDataType
    from scalellm_trt.plan import Plan
    from scalellm_trt.runtime.settings import EngineContract, ServiceSettings

BACKEND: Final = "tensorrtllm"
ENGINE_MODULE: Final = "engine_tensorrt_llm"  # the entry module imports it by the name in the settings
ENGINE_DIRECTORY: Final = "engine"
VERSION: Final = "1"
ENGINE_PATH_KEY: Final = "gpt_model_path"

LOGITS_TYPES: Final[Mapping[str, TritonDataType]] = {
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "float32": "TYPE_FP32",
}

CANCEL_POLL_MS: Final = 50.0
"""How often the text model asks whether a client has gone; each question costs 0.12 ms of the server's time."""
RESPONSE_SPACING_MS: Final = 1.0
"""For each live stream: with 64 streams a response every 64 ms, two or three tokens of a 30 ms step."""

WORKER_PATH: Final = "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker"
FREE_MEMORY_PERCENT: Final = range(95, LARGEST_FREE_PERCENT + 1)
"""Of the memory that is free when a model loads: only an upper bound, the budget in tokens is what decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFacts:
    """What the models need to know of an engine.

    Attributes:
        directory: its files: config.json, rankN.engine, tokenizer.
        logits: element type of its logits; a `config.pbtxt` with another loads, and fails when logits are asked for.
        eos_token_ids: ids that end an answer; the engine itself watches for the first.
        tokenizer_files: names below `directory` that text models need.
    """

    directory: Path
    logits: TritonDataType
    eos_token_ids: tuple[int, ...]
    tokenizer_files: tuple[str, ...]


def triton_models(plan: Plan, engine: Engine, contract: EngineContract) -> list[TritonModel]:
    """Return the models that serve `engine`, text models after the engines that they ask.

    Raises:
        ArtefactError: the engine's config.json is missing or says nothing of its logits.
    """
    return models(plan, read_facts(plan, engine.directory), contract)


def read_facts(plan: Plan, directory: Path) -> CompiledFacts:
    """Look into an engine's directory; raises as `triton_models`."""
    path = directory / "config.json"
    try:
        dtype = json.loads(path.read_text(encoding="utf-8"))["pretrained_config"]["logits_dtype"]
        logits = LOGITS_TYPES[dtype]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path}: does not say what type the engine's logits have: {type(error).__name__}: {error}"
        raise ArtefactError(message, hint="Compile again: scalellm-trt build RECIPE --force compile") from error
    return CompiledFacts(
        directory=directory,
        logits=logits,
        eos_token_ids=eos_token_ids(plan, directory),
        tokenizer_files=tuple(name for name in TOKENIZER_FILES if (directory / name).is_file()),
    )


def models(plan: Plan, compiled: CompiledFacts, contract: EngineContract) -> list[TritonModel]:
    """Return the models for an engine of which everything is known; touches no file of it."""
    names = service_names(plan)
    home = f"{engine_name(names[0])}/{VERSION}/{ENGINE_DIRECTORY}"
    found = []
    for name in names:
        holds_engine = name == names[0]
        found.append(_engine_model(plan, compiled, contract, name=name, home=home, holds_engine=holds_engine))
        found.append(_text_model(plan, compiled, contract, name=name))
    return found


def service_names(plan: Plan) -> tuple[str, ...]:
    """Return the names that clients call."""
    if plan.services == 1:
        return (plan.name,)
    return tuple(f"{plan.name}-{number}" for number in range(1, plan.services + 1))


def engine_name(service: str) -> str:
    """Return the name of the model that has the engine of a text model."""
    return f"{service}_engine"


def problems(plan: Plan) -> list[Problem]:
    """Return what the C++ backend would accept and do wrong."""
    block, tokens, longest = plan.serving.tokens_per_block, plan.serving.kv_cache_tokens, plan.limits.max_seq_len
    found = []
    if tokens % block:
        hint = f"Nearest: {tokens // block * block or block}."
        message = f"{tokens} is not a multiple of {block}, the page of the KV cache"
        found.append(Problem(key="serving.kv_cache_tokens", message=message, hint=hint))
    if tokens < longest + block:
        message = f"{tokens} tokens are too few for one sequence of max_seq_len ({longest}) and a page of {block}"
        hint = "The engine would shorten its attention window without a word. Raise it, or lower limits.max_seq_len."
        found.append(Problem(key="serving.kv_cache_tokens", message=message, hint=hint))
    return found


def _engine_model(
    plan: Plan, compiled: CompiledFacts, contract: EngineContract, *, name: str, home: str, holds_engine: bool
) -> TritonModel:
    limits, serving = plan.limits, plan.serving
    return TritonModel(
        name=engine_name(name),
        backend=BACKEND,
        max_batch_size=limits.max_batch_size,
        # The executor takes this as the limit of its own queue. The text model refuses first, with a better word.
        max_queue_size=serving.max_queue_size + limits.max_batch_size,
        inputs=contracts.inputs(contract, compiled.logits),
        outputs=contracts.outputs(contract, compiled.logits),
        parameters=engine_parameters(plan, contract),
        repository_paths={ENGINE_PATH_KEY: home},
        default_model_filename=None,
        source_files={},
        directories={ENGINE_DIRECTORY: compiled.directory} if holds_engine else {},
        settings={
            "repository_paths": {ENGINE_PATH_KEY: home},
            "tp_size": plan.tp_size,
            "pp_size": plan.pp_size,
            "hardware": plan.hardware,
            "toolchain": plan.toolchain,
            "kv_cache_tokens": serving.kv_cache_tokens,
        },
    )


def engine_parameters(plan: Plan, contract: EngineContract) -> dict[str, str]:
    """Return `parameters` of the C++ backend, without the engine's path.

    Left out because even an empty value would be taken for a directory: lora_prefetch_dir, encoder_model_path.
    """
    serving = plan.serving
    parameters = {
        "gpt_model_type": "inflight_fused_batching",
        "max_beam_width": "1",
        "FORCE_CPU_ONLY_INPUT_TENSORS": "no",
        "max_tokens_in_paged_kv_cache": str(serving.kv_cache_tokens),
        "kv_cache_free_gpu_mem_fraction": str(free_memory_fraction(plan)),
        "batch_scheduler_policy": serving.batch_scheduler_policy,
        "enable_kv_cache_reuse": _flag(serving.kv_cache_reuse),
        "enable_chunked_context": _flag(serving.chunked_context),
        "exclude_input_in_output": "true",
        "cancellation_check_period_ms": "5",
        "stats_check_period_ms": "100",
        "iter_stats_max_iterations": "1000",
        "normalize_log_probs": "true",
        "decoding_mode": "top_k_top_p",
        "executor_worker_path": WORKER_PATH,
    }
    if contract == "0.13":
        # The C++ code of 0.13 reads these two names; those of its own template are dead.
        return parameters | {"multiBlockMode": "true", "enableContextFMHAFP32Acc": "false"}
    # The first three must be there, if empty: without the key the model does not load.
    return parameters | {
        "tokenizer_dir": "",
        "xgrammar_tokenizer_info_path": "",
        "guided_decoding_backend": "",
        "multi_block_mode": "true",
        "enable_context_fmha_fp32_acc": "false",
        "cuda_graph_mode": "false",
    }


def free_memory_fraction(plan: Plan) -> float:
    """Return the share of free memory that lets the service that loads last have its whole budget; it must be below 1.

    Formula: pool / (pool + what is free beside it); the margin is free in truth.
    """
    budget = next((each for each in plan.budgets if (each.stage, each.place) == ("load", "device")), None)
    if budget is None:
        return FREE_MEMORY_PERCENT[0] / 100
    pool = plan.serving.kv_cache_bytes
    free = budget.available_bytes - budget.total_bytes + pool
    return next((p / 100 for p in FREE_MEMORY_PERCENT if p * free >= 100 * pool), FREE_MEMORY_PERCENT[-1] / 100)


def _text_model(plan: Plan, compiled: CompiledFacts, contract: EngineContract, *, name: str) -> TritonModel:
    return TritonModel(
        name=name,
        backend="python",
        max_batch_size=1,
        inputs=TEXT_INPUTS,
        outputs=TEXT_OUTPUTS,
        parameters={},
        default_model_filename=f"{ENTRY_MODULE}.py",
        source_files={
            **files_behind(ENTRY_MODULE, ENGINE_MODULE),
            **{f"{ENGINE_DIRECTORY}/{file}": compiled.directory / file for file in compiled.tokenizer_files},
        },
        directories={},
        settings=text_settings(plan, compiled, contract, name=name).to_json(),
    )


def text_settings(plan: Plan, compiled: CompiledFacts, contract: EngineContract, *, name: str) -> ServiceSettings:
    """Return what the text model of the service `name` needs to know."""
    common = planned_settings(
        plan,
        engine="tensorrt_llm",
        engine_directory=ENGINE_DIRECTORY,
        engine_model=engine_name(name),
        end_ids=compiled.eos_token_ids,
    )
    return dataclasses.replace(
        common,
        engine_contract=contract,
        response_spacing_ms=RESPONSE_SPACING_MS,
        cancel_poll_ms=CANCEL_POLL_MS,
    )


def _flag(value: bool) -> str:
    return "true" if value else "false"
