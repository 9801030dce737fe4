"""The recipe a person wrote, checked and frozen. `load` reads a file; every problem names file, line and key."""

from __future__ import annotations

from scalellm_trt.recipe.loader import LoadedRecipe, Origin, load
from scalellm_trt.recipe.schema import (
    BackendName,
    Calibration,
    KvCacheDtype,
    Limits,
    Model,
    ModelDtype,
    Parallel,
    Quantization,
    Recipe,
    SchedulerPolicy,
    Serving,
    Slo,
    WeightFormat,
)

__all__ = [
    "BackendName",
    "Calibration",
    "KvCacheDtype",
    "Limits",
    "LoadedRecipe",
    "Model",
    "ModelDtype",
    "Origin",
    "Parallel",
    "Quantization",
    "Recipe",
    "SchedulerPolicy",
    "Serving",
    "Slo",
    "WeightFormat",
    "load",
]
