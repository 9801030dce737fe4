"""The C++ engine's model with `engine_model.py` in its place: for the real tritonserver, and for unit tests."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import TritonModel

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
