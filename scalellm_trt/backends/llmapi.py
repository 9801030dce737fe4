"""Models for TensorRT-LLM's LLM API: a Hugging Face checkpoint quantized by ModelOpt, and the settings of its runtime.

There is no engine: `compile` puts the checkpoint's files (as hard links) beside `model.yaml`, the arguments of
`LLM(...)`, so that what is published stands on its own.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import manifest
from scalellm_trt.backends import calibration_tools, llmapi_models
from scalellm_trt.errors import ArtefactError, Problem
from scalellm_trt.runtime.engine_llmapi import MODEL_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.artefacts.types import Checkpoint, Engine, EngineKind, Stamp, TritonModel
    from scalellm_trt.backends.base import Needs, Progress
    from scalellm_trt.plan import Plan


class LlmApiBackend:
    """See `base.Backend`."""

    name = "llmapi"
    engine_kind: EngineKind = "llm_api"

    def check(self, plan: Plan) -> list[Problem]:
        """See `base.Backend.check`; which formats a card takes was the plan's business."""
        from scalellm_trt.checkpoint.unified import unified_problems

        problems = unified_problems(plan.spec, plan.quantization)
        if not plan.spec.eos_token_ids:
            message = "the model names no end-of-sequence token, so no answer would ever end by itself"
            problems.append(Problem(key="model", message=message, hint="Set eos_token_id in the model's config.json."))
        return problems

    def stage_inputs(self, plan: Plan, stage: StageName) -> dict[str, Scalar]:
        """See `base.Backend.stage_inputs`."""
        return calibration_tools.stage_inputs(plan) if stage == "quantize" else {}

    def missing(self, needs: Needs, stage: StageName, progress: Progress) -> list[str]:
        """See `base.Backend.missing`; only calibration needs more than the base install."""
        del progress
        return calibration_tools.missing(needs.weights) if stage == "quantize" and needs.is_calibrated else []

    def commands(self, plan: Plan, stage: StageName, source: Path, out_dir: Path) -> list[list[str]]:
        """See `base.Backend.commands`: no stage starts a program."""
        del plan, stage, source, out_dir
        return []

    def quantize(self, plan: Plan, out_dir: Path, progress: Progress) -> None:
        """See `base.Backend.quantize`."""
        from scalellm_trt.checkpoint.unified import write_unified

        # Tensor parallelism is the runtime's: it splits what it loads.
        write_unified(plan.model.directory, plan.spec, plan.quantization, out_dir, progress, dtype=plan.dtype)

    def compile(self, plan: Plan, checkpoint: Checkpoint, out_dir: Path, progress: Progress) -> Stamp | None:
        """See `base.Backend.compile`; a checkpoint that is damaged or not of this plan's model is refused.

        Any card that has the formats can load it, so there is no stamp.
        """
        from scalellm_trt.checkpoint.unified_verify import verify_unified

        progress("verify the checkpoint", 0.0)
        if found := verify_unified(checkpoint.directory, plan.spec):
            raise ArtefactError("\n".join(str(problem) for problem in found))
        for path in sorted(checkpoint.directory.iterdir()):
            if path.is_file() and path.name != manifest.MANIFEST_NAME:
                progress(f"link {path.name}", 0.5)
                _link(path, out_dir / path.name)
        text = json.dumps(llmapi_models.model_arguments(plan), indent=1) + "\n"
        (out_dir / MODEL_FILE).write_text(text, encoding="utf-8")
        return None

    def planned_models(self, plan: Plan, engine_dir: Path | None) -> list[TritonModel]:
        """See `base.Backend.planned_models`."""
        return llmapi_models.models(plan, plan.model.directory if engine_dir is None else engine_dir)

    def triton_models(self, plan: Plan, engine: Engine) -> list[TritonModel]:
        """See `base.Backend.triton_models`: python models that host the LLM API and take text or tokens."""
        return llmapi_models.models(plan, engine.directory)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
