"""A plan and the files of its checkpoint in, the Triton models that host TensorRT-LLM's LLM API out.

The arguments of `LLM(...)` are written as JSON, which is YAML too: `trtllm-serve --extra_llm_api_options` takes the
same file.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts.types import TritonModel
from scalellm_trt.backends.runtime_files import files_behind
from scalellm_trt.backends.tensorrt_llm_models import (
    CANCEL_POLL_MS,
    RESPONSE_SPACING_MS,
    free_memory_fraction,
    service_names,
)
from scalellm_trt.backends.text_model import ENTRY_MODULE, TEXT_INPUTS, TEXT_OUTPUTS, eos_token_ids, planned_settings

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.plan import Plan
    from scalellm_trt.runtime.settings import ServiceSettings

ENGINE_MODULE: Final = "engine_llmapi"  # the entry module imports it by the name in the settings
ENGINE_DIRECTORY: Final = "engine"
KV_CACHE_DTYPES: Final = {"float16": "auto", "bfloat16": "auto", "fp8": "fp8"}
SCHEDULER_POLICIES: Final = {"guaranteed_no_evict": "GUARANTEED_NO_EVICT", "max_utilization": "MAX_UTILIZATION"}


def model_arguments(plan: Plan) -> dict[str, object]:
    """Return the arguments of `LLM(...)`; `model` is relative to the file.

    The budget is in bytes and in tokens: whichever is reached first, and each service has its own.
    """
    limits, serving = plan.limits, plan.serving
    return {
        "model": ".",
        "backend": "pytorch",
        "dtype": plan.dtype,
        "skip_tokenizer_init": True,
        "tensor_parallel_size": plan.tp_size,
        "pipeline_parallel_size": plan.pp_size,
        "max_batch_size": limits.max_batch_size,
        "max_num_tokens": limits.max_num_tokens,
        "max_seq_len": limits.max_seq_len,
        "enable_chunked_prefill": serving.chunked_context,
        "scheduler_config": {"capacity_scheduler_policy": SCHEDULER_POLICIES[serving.batch_scheduler_policy]},
        "kv_cache_config": {
            "dtype": KV_CACHE_DTYPES[plan.quantization.kv_cache_dtype],
            "enable_block_reuse": serving.kv_cache_reuse,
            "tokens_per_block": serving.tokens_per_block,
            "max_tokens": serving.kv_cache_tokens,
            "max_gpu_total_bytes": serving.kv_cache_bytes,
            "free_gpu_memory_fraction": free_memory_fraction(plan),
        },
    }


def models(plan: Plan, directory: Path) -> list[TritonModel]:
    """Return a model for each service; all load the same files, each with a budget of its own."""
    return [
        TritonModel(
            name=name,
            backend="python",
            max_batch_size=1,
            inputs=TEXT_INPUTS,
            outputs=TEXT_OUTPUTS,
            parameters={},
            default_model_filename=f"{ENTRY_MODULE}.py",
            source_files=files_behind(ENTRY_MODULE, ENGINE_MODULE),
            directories={ENGINE_DIRECTORY: directory},
            settings=_settings(plan, directory).to_json(),
        )
        for name in service_names(plan)
    ]


def _settings(plan: Plan, directory: Path) -> ServiceSettings:
    end_ids = eos_token_ids(plan, directory)
    common = planned_settings(plan, engine="llmapi", engine_directory=ENGINE_DIRECTORY, end_ids=end_ids)
    return dataclasses.replace(common, response_spacing_ms=RESPONSE_SPACING_MS, cancel_poll_ms=CANCEL_POLL_MS)
