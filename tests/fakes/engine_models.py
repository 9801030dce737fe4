"""Plans and engines of TensorRT-LLM without a GPU, and `engine_model.py` in the C++ backend's place.

For the real tritonserver (`as_python`), and for unit tests over the fake backend (`served`).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from scalellm_trt import facts
from scalellm_trt.artefacts.types import Engine
from scalellm_trt.backends import tensorrt_llm_models
from scalellm_trt.triton import repository
from tests.fakes import small_tokenizer
from tests.fakes.plans import tiny_plan

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import TritonModel
    from scalellm_trt.plan import Plan
    from scalellm_trt.runtime.settings import EngineContract

SERVICES = {"new": "tensorrt-llm-1.2.1", "old": "tensorrt-llm-0.13.0"}
"""Service → toolchain: one of each generation of the contract."""
SOURCE = Path(__file__).parent / "engine_model.py"
DTYPES: dict[str, Any] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_UINT64": np.uint64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_STRING": np.object_,
}


def gpu_plan(**changes: Any) -> Plan:
    """Return the plan of a tiny model on a 4090, with `changes` to its fields."""
    base = {"name": "llama", "backend": "tensorrt_llm", "hardware": "rtx4090", "toolchain": "tensorrt-llm-1.2.1"}
    return tiny_plan(**{**base, **changes})


def models_of(plan: Plan, engine: Engine) -> list[TritonModel]:
    """Return the models of a plan in the names of its toolchain's generation."""
    return tensorrt_llm_models.triton_models(plan, engine, contract_of(plan))


def contract_of(plan: Plan) -> EngineContract:
    """Return the generation of a plan's toolchain."""
    gpu = facts.toolchains()[plan.toolchain].gpu
    assert gpu is not None
    return gpu.contract


def write_engine(directory: Path, logits: str = "float16") -> Engine:
    """Write what the build leaves in an engine's directory, with a plan file that nothing can load."""
    small_tokenizer.write(directory)
    (directory / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    (directory / "rank0.engine").write_bytes(b"plan")
    (directory / "config.json").write_text(json.dumps({"pretrained_config": {"logits_dtype": logits}}))
    return Engine(directory=directory, digest="d", kind="trt_engine")


def tokenizer_of(directory: Path) -> Tokenizer:
    """Return the tokenizer of an engine that `write_engine` made."""
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


def as_python(model: TritonModel, **parameters: str) -> TritonModel:
    """Return the engine's model as a python model of the same name and tensors; `parameters` as in engine_model.py."""
    return dataclasses.replace(
        model,
        backend="python",
        default_model_filename="model.py",
        source_files={"model.py": SOURCE},
        parameters={**model.parameters, **parameters},
    )


def served(model: TritonModel, **parameters: str) -> Any:
    """Return `model` loaded into the fake backend, for its `SERVED`."""
    import triton_python_backend_utils as pb

    from tests.fakes.engine_model import TritonPythonModel

    engine = TritonPythonModel()
    values = {**model.parameters, **parameters}
    config = {
        "parameters": {key: {"string_value": value} for key, value in values.items()},
        "max_batch_size": model.max_batch_size,
        "dynamic_batching": {"default_queue_policy": {"max_queue_size": model.max_queue_size or 0}},
    }
    engine.initialize({"model_config": json.dumps(config)})
    inputs = {
        tensor.name: (np.dtype(DTYPES[tensor.data_type]), tensor.dims, tensor.optional) for tensor in model.inputs
    }
    return pb.ServedModel(engine, inputs, [tensor.name for tensor in model.outputs])


def publish_services(project: Path, **parameters: str) -> Path:
    """Publish the services of both generations with engines that python plays; return the repository.

    Args:
        project: gets the engines, in directories with the services' names, and `triton_repo`.
        parameters: how the engines behave; see engine_model.py.
    """
    root = project / "triton_repo"
    for name, toolchain in SERVICES.items():
        engine = write_engine(project / name)
        plan = gpu_plan(name=name, toolchain=toolchain)
        contract = contract_of(plan)
        models = [
            as_python(model, contract=contract, **parameters) if model.backend == "tensorrtllm" else model
            for model in models_of(plan, engine)
        ]
        repository.publish(
            models,
            service=name,
            recipe=f"recipes/{name}.yaml",
            owner_digest="x",
            engine_digest="y",
            root=root,
            state_dir=repository.state_dir_for(root, project / "builds"),
        )
    return root
