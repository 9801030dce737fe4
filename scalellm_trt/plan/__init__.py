"""Recipe + hardware + model → Plan: every "auto" resolved, every choice with its reason, every stage's memory.

`types` holds the values, `make` resolves, `fit` finds the smallest changes when it does not fit, `slices` gives
digests and the keys that each build stage depends on.
"""

from scalellm_trt.plan.fit import disk_problem
from scalellm_trt.plan.make import LoadedRecipe, make
from scalellm_trt.plan.slices import flatten, plan_digest, stage_inputs, stage_names, to_json
from scalellm_trt.plan.types import (
    Decision,
    LimitsPlan,
    Plan,
    QuantizationPlan,
    ResolvedKvCacheDtype,
    ServingPlan,
)

__all__ = [
    "Decision",
    "LimitsPlan",
    "LoadedRecipe",
    "Plan",
    "QuantizationPlan",
    "ResolvedKvCacheDtype",
    "ServingPlan",
    "disk_problem",
    "flatten",
    "make",
    "plan_digest",
    "stage_inputs",
    "stage_names",
    "to_json",
]
