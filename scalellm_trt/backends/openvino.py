"""The embedded CPU backend: checkpoints by streaming conversion or ModelOpt, engines for OpenVINO.

Where a service's start goes, in CPU seconds (SmolLM2-135M, full_prec, AVX2, OpenVINO 2026.4.1, best of four): imports
0.3, reading the XML 0.1 (weights are mapped, not read), the paged-attention transformation 0.1, compiling 1.1, the rest
of the pipeline 0.2. Matrices are packed while the first request runs, which costs it 0.7 (int8_wo: 0.2); memory grows
then from 155 MB to 700 MB (int8_wo: 490 MB): two packed copies of each matrix, for steps of one token and of more.
OpenVINO's compiled-model cache is not used: with it the pipeline loaded slower in four of four pairs, and it stores the
weights again (312 MB).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts.types import Engine, EngineKind, TritonModel
from scalellm_trt.backends import calibration_tools
from scalellm_trt.backends.runtime_files import files_behind
from scalellm_trt.backends.text_model import ENTRY_MODULE, TEXT_INPUTS, TEXT_OUTPUTS, eos_token_ids, planned_settings
from scalellm_trt.errors import Problem

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.artefacts.types import Checkpoint
    from scalellm_trt.backends.base import Needs, Progress
    from scalellm_trt.plan import Plan
    from scalellm_trt.runtime.settings import KvCachePrecision, ServiceSettings

STREAMED_FORMATS: Final = ("full_prec", "int8_wo", "int4_wo")
WEIGHT_FORMATS: Final = (*STREAMED_FORMATS, "int4_awq")
KV_CACHE_PRECISIONS: Final[dict[str, KvCachePrecision]] = {"float16": "f16", "int8": "u8"}

ENGINE_MODULE: Final = "engine_openvino"  # the entry module imports it by the name in the settings
ENGINE_DIRECTORY: Final = "engine"


class OpenVinoBackend:
    """See `base.Backend`."""

    name = "openvino"
    engine_kind: EngineKind = "openvino_ir"

    def check(self, plan: Plan) -> list[Problem]:
        """See `base.Backend.check`."""
        weights, kv_cache_dtype = plan.quantization.weights, plan.quantization.kv_cache_dtype
        problems = []
        if weights not in WEIGHT_FORMATS:
            problems.append(_refusal("quantization.weights", f"{weights!r}", ", ".join(WEIGHT_FORMATS)))
        if kv_cache_dtype not in KV_CACHE_PRECISIONS:
            problems.append(_refusal("quantization.kv_cache_dtype", f"{kv_cache_dtype!r}", "auto, int8"))
        for key, size in (("parallel.tp_size", plan.tp_size), ("parallel.pp_size", plan.pp_size)):
            if size != 1:
                problems.append(_refusal(key, f"{size} ranks", "1"))
        if plan.services != 1:
            message = f"{plan.services} copies would share the processor that one fills already"
            problems.append(Problem(key="services", message=message, hint="Allowed: 1; it batches in flight."))
        if not plan.spec.eos_token_ids:
            message = "the model names no end-of-sequence token, so no answer would ever end by itself"
            problems.append(Problem(key="model", message=message, hint="Set eos_token_id in the model's config.json."))
        return problems

    def stage_inputs(self, plan: Plan, stage: StageName) -> dict[str, Scalar]:
        """See `base.Backend.stage_inputs`; a library that is not there counts as a version of its own."""
        if stage == "compile":
            return {"tool.openvino": calibration_tools.version("openvino")}
        return calibration_tools.stage_inputs(plan) if stage == "quantize" else {}

    def missing(self, needs: Needs, stage: StageName, progress: Progress) -> list[str]:
        """See `base.Backend.missing`; openvino itself is asked for where it is used, within a second."""
        return calibration_tools.missing(needs.weights) if stage == "quantize" and needs.is_calibrated else []

    def commands(self, plan: Plan, stage: StageName, source: Path, out_dir: Path) -> list[list[str]]:
        """See `base.Backend.commands`: every stage runs in this process."""
        return []

    def quantize(self, plan: Plan, out_dir: Path, progress: Progress) -> None:
        """See `base.Backend.quantize`."""
        from scalellm_trt.checkpoint.write import write_checkpoint

        # OpenVINO scales its own KV cache: the checkpoint needs no scales for it.
        quantization = dataclasses.replace(plan.quantization, kv_cache_dtype="float16")
        write_checkpoint(plan.model.directory, plan.spec, quantization, out_dir, progress, dtype=plan.dtype)

    def compile(self, plan: Plan, checkpoint: Checkpoint, out_dir: Path, progress: Progress) -> None:
        """See `base.Backend.compile`; a checkpoint that is damaged or not of this plan's model is refused."""
        from scalellm_trt.backends.openvino_compile import compile_checkpoint
        from scalellm_trt.checkpoint.verify import require_sound

        progress("verify the checkpoint", 0.0)
        require_sound(checkpoint.directory, plan.spec)
        compile_checkpoint(checkpoint.directory, out_dir, lambda what, share: progress(what, 0.2 + 0.8 * share))

    def planned_models(self, plan: Plan, engine_dir: Path | None) -> list[TritonModel]:
        """See `base.Backend.planned_models`; the model has the files that the engine gets."""
        directory = plan.model.directory if engine_dir is None else engine_dir
        return self.triton_models(plan, Engine(directory=directory, digest="", kind=self.engine_kind))

    def triton_models(self, plan: Plan, engine: Engine) -> list[TritonModel]:
        """See `base.Backend.triton_models`: one python model that hosts the engine and takes text or tokens."""
        return [
            TritonModel(
                name=plan.name,
                backend="python",
                max_batch_size=1,
                inputs=TEXT_INPUTS,
                outputs=TEXT_OUTPUTS,
                parameters={},
                default_model_filename=f"{ENTRY_MODULE}.py",
                source_files=files_behind(ENTRY_MODULE, ENGINE_MODULE),
                directories={ENGINE_DIRECTORY: engine.directory},
                settings=service_settings(plan, engine.directory).to_json(),
            )
        ]


def service_settings(plan: Plan, engine_dir: Path) -> ServiceSettings:
    """Return what the code inside tritonserver needs to know.

    Raises:
        ArtefactError: the engine's generation_config.json cannot be read.
    """
    end_ids = eos_token_ids(plan, engine_dir)
    common = planned_settings(plan, engine="openvino", engine_directory=ENGINE_DIRECTORY, end_ids=end_ids)
    return dataclasses.replace(common, kv_cache_precision=KV_CACHE_PRECISIONS[plan.quantization.kv_cache_dtype])


def _refusal(key: str, found: str, allowed: str) -> Problem:
    message = f"{found} cannot be done by the openvino backend, which runs on CPUs"
    return Problem(key=key, message=message, hint=f"Allowed: {allowed}.")
