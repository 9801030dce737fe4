"""Recipe + hardware + model → Plan: every "auto" resolved, every choice with its reason, every stage's memory.

`types` holds the values, `make` resolves, `fit` and `changes` say what helps when it does not fit, `outlook` what it
means for users, `slices` gives digests and the keys that each build stage depends on.
"""

from scalellm_trt.plan.fit import DoesNotFitError, disk_problem
from scalellm_trt.plan.make import LoadedRecipe, make, try_plan
from scalellm_trt.plan.outlook import MAX_TOKENS, PROMPT_TOKENS, KvPool, Outlook, outlook
from scalellm_trt.plan.pool import concurrency, device_budget, last_loader_fraction, num_sequences
from scalellm_trt.plan.report import report_json
from scalellm_trt.plan.slices import flatten, plan_digest, stage_inputs, stage_names, to_json
from scalellm_trt.plan.suggest import Objective, Suggestion, suggest
from scalellm_trt.plan.types import (
    Decision,
    LimitsPlan,
    Plan,
    QuantizationPlan,
    ResolvedKvCacheDtype,
    ServingPlan,
)
from scalellm_trt.plan.what_if import on_card

__all__ = [
    "MAX_TOKENS",
    "PROMPT_TOKENS",
    "Decision",
    "DoesNotFitError",
    "KvPool",
    "LimitsPlan",
    "LoadedRecipe",
    "Objective",
    "Outlook",
    "Plan",
    "QuantizationPlan",
    "ResolvedKvCacheDtype",
    "ServingPlan",
    "Suggestion",
    "concurrency",
    "device_budget",
    "disk_problem",
    "flatten",
    "last_loader_fraction",
    "make",
    "num_sequences",
    "on_card",
    "outlook",
    "plan_digest",
    "report_json",
    "stage_inputs",
    "stage_names",
    "suggest",
    "to_json",
    "try_plan",
]
