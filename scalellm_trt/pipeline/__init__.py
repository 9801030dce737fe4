"""plan → quantize → compile → assemble: a recipe in, a published service out; what is unchanged is not done again.

`build` does it, `preview` and `dry_run` say what it would do, `inspection` looks after what it left in `builds/`.
"""

from scalellm_trt.pipeline.build import build
from scalellm_trt.pipeline.dry_run import dry_run
from scalellm_trt.pipeline.inspection import CacheEntry, cache_entries, prune_cache, verify_cache
from scalellm_trt.pipeline.preview import check, explain, preview
from scalellm_trt.pipeline.requirements import build_command
from scalellm_trt.pipeline.steps import (
    STEPS,
    BuildReport,
    Reporter,
    Step,
    StepPreview,
    StepReport,
    Workspace,
    parse_step,
)
from scalellm_trt.pipeline.study import Study, study

__all__ = [
    "STEPS",
    "BuildReport",
    "CacheEntry",
    "Reporter",
    "Step",
    "StepPreview",
    "StepReport",
    "Study",
    "Workspace",
    "build",
    "build_command",
    "cache_entries",
    "check",
    "dry_run",
    "explain",
    "parse_step",
    "preview",
    "prune_cache",
    "study",
    "verify_cache",
]
