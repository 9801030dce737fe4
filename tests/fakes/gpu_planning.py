"""Llama-2-13B on cards that are not here: recipes with places, and their plans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalellm_trt import facts, model_spec, plan
from scalellm_trt.artefacts.types import LocalModel
from scalellm_trt.recipe import Recipe
from tests.fakes.planning import MACHINE, FakeLoadedRecipe

if TYPE_CHECKING:
    from scalellm_trt.detect import Machine
    from scalellm_trt.plan import Plan

SOURCE = "hf:meta-llama/Llama-2-13b-chat-hf"
LLAMA2_13B = model_spec.from_hf_config(facts.models()["Llama-2-13b-chat"].config)
MODEL = LocalModel(directory=Path("/models/llama2"), source=SOURCE, revision="r1", digest="d1")
RTX4090 = {"max_batch_size": 16, "max_input_len": 4000, "max_seq_len": 4096, "max_num_tokens": 4096}


def loaded(**sections: Any) -> FakeLoadedRecipe:
    """Return the published RTX 4090 recipe; keyword arguments replace whole sections."""
    body = {
        "schema": 1,
        "name": "llama2-13b-rtx4090",
        "model": {"source": SOURCE},
        "hardware": "rtx4090",
        "backend": "tensorrt_llm",
        "toolchain": "tensorrt-llm-1.2.1",
        "quantization": {"weights": "int8_wo", "kv_cache_dtype": "fp8"},
        "limits": RTX4090,
        "serving": {"kv_cache_tokens": 20480},
    }
    return FakeLoadedRecipe(recipe=Recipe.model_validate(body | sections))


def make(machine: Machine = MACHINE, **sections: Any) -> Plan:
    """Return the plan of `loaded(**sections)`."""
    return plan.make(loaded(**sections), MODEL, LLAMA2_13B, machine)
