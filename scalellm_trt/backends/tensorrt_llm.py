"""Engines for Triton's C++ backend: checkpoints written here, compiled by `trtllm-build`, here or in its image.

Guided decoding is refused by name when a request asks for it: the C++ backend wants a file made from the tokenizer with
xgrammar, which is not in the build's interpreter. LoRA likewise: engines are built without its plugin.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from scalellm_trt import detect, facts
from scalellm_trt.backends import calibration_tools, gpu_machine, trtllm_build, trtllm_compile
from scalellm_trt.detect import nvidia
from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.manifest import Scalar, StageName
    from scalellm_trt.artefacts.types import Checkpoint, Engine, EngineKind, Stamp, TritonModel
    from scalellm_trt.backends.base import Needs, Progress
    from scalellm_trt.backends.site import Site
    from scalellm_trt.checkpoint.config import CheckpointConfig
    from scalellm_trt.plan import Plan


class TensorRtLlmBackend:
    """See `base.Backend`."""

    name = "tensorrt_llm"
    engine_kind: EngineKind = "trt_engine"

    def __init__(self, site: Site) -> None:
        """Compile at `site`."""
        self._site = site

    def check(self, plan: Plan) -> list[Problem]:
        """See `base.Backend.check`; which formats a card takes was the plan's business."""
        from scalellm_trt.backends import tensorrt_llm_models

        problems = tensorrt_llm_models.problems(plan)
        if not plan.spec.eos_token_ids:
            message = "the model names no end-of-sequence token, so no answer would ever end by itself"
            problems.append(Problem(key="model", message=message, hint="Set eos_token_id in the model's config.json."))
        try:
            _checkpoint_config(plan)
        except UnsupportedError as error:
            problems.extend(error.problems)
        return problems

    def stage_inputs(self, plan: Plan, stage: StageName) -> dict[str, Scalar]:
        """See `base.Backend.stage_inputs`; the image is no input: those of a stamp class make the same engines."""
        if stage == "quantize":
            return calibration_tools.stage_inputs(plan)
        if stage == "compile":
            toolchain = trtllm_build.gpu_toolchain(plan)
            return {"tool.tensorrt_llm": toolchain.tensorrt_llm, "tool.tensorrt": toolchain.tensorrt}
        return {}

    def missing(self, needs: Needs, stage: StageName, progress: Progress) -> list[str]:
        """See `base.Backend.missing`."""
        if stage == "quantize":
            return calibration_tools.missing(needs.weights) if needs.is_calibrated else []
        if stage != "compile":
            return []
        toolchain = facts.toolchains()[needs.toolchain].gpu
        hardware = facts.hardware()[needs.hardware]
        if toolchain is None:  # our own bug: such a plan has another backend
            message = f"{needs.toolchain} is no GPU toolchain"
            raise AssertionError(message)
        if self._site.container is None and shutil.which(trtllm_build.PROGRAM) is None:
            return [f"there is no {trtllm_build.PROGRAM} (TensorRT-LLM {toolchain.tensorrt_llm}) on the PATH"]
        if self._site.container is not None:
            # Before an image of 14 GB is pulled.
            here = nvidia.look()
            if not here.gpus:
                return [here.problem or "there is no NVIDIA driver: nvidia-smi was not found"]
            if old := gpu_machine.driver_problems(here.gpus[0].driver_version, toolchain):
                return old
        progress(f"look for {needs.toolchain}", 0.0)
        return gpu_machine.problems(trtllm_compile.look(self._site, toolchain), toolchain, hardware)

    def commands(self, plan: Plan, stage: StageName, source: Path, out_dir: Path) -> list[list[str]]:
        """See `base.Backend.commands`."""
        if stage != "compile":
            return []
        cards = detect.machine().gpus
        name = cards[0].name if cards else next(iter(facts.hardware()[plan.hardware].gpu_names), plan.hardware)
        return [trtllm_compile.command(plan, self._site, source, out_dir, name)]

    def quantize(self, plan: Plan, out_dir: Path, progress: Progress) -> None:
        """See `base.Backend.quantize`; runs here also where the engine is compiled in an image.

        The image's ModelOpt is older than the one that the export is written for.
        """
        from scalellm_trt.checkpoint.write import write_checkpoint

        write_checkpoint(
            plan.model.directory,
            plan.spec,
            plan.quantization,
            out_dir,
            progress,
            dtype=plan.dtype,
            tp_size=plan.tp_size,
            pp_size=plan.pp_size,
        )

    def compile(self, plan: Plan, checkpoint: Checkpoint, out_dir: Path, progress: Progress) -> Stamp:
        """See `base.Backend.compile`; a checkpoint that is damaged or not of this plan's model is refused."""
        from scalellm_trt.checkpoint.verify import require_sound

        progress("verify the checkpoint", 0.0)
        require_sound(checkpoint.directory, plan.spec)
        return trtllm_compile.compile_engine(plan, self._site, checkpoint.directory, out_dir, progress)

    def planned_models(self, plan: Plan, engine_dir: Path | None) -> list[TritonModel]:
        """See `base.Backend.planned_models`; an engine has its checkpoint's logits and its model's tokenizer."""
        from scalellm_trt.backends import tensorrt_llm_models as serving
        from scalellm_trt.backends.text_model import eos_token_ids
        from scalellm_trt.checkpoint.tokenizer_files import TOKENIZER_FILES

        directory = plan.model.directory if engine_dir is None else engine_dir
        compiled = serving.CompiledFacts(
            directory=directory,
            logits=serving.LOGITS_TYPES[_checkpoint_config(plan).logits_dtype],
            eos_token_ids=eos_token_ids(plan, directory),
            tokenizer_files=tuple(name for name in TOKENIZER_FILES if (directory / name).is_file()),
        )
        return serving.models(plan, compiled, trtllm_build.gpu_toolchain(plan).contract)

    def triton_models(self, plan: Plan, engine: Engine) -> list[TritonModel]:
        """See `base.Backend.triton_models`."""
        from scalellm_trt.backends import tensorrt_llm_models as serving

        return serving.triton_models(plan, engine, trtllm_build.gpu_toolchain(plan).contract)


def _checkpoint_config(plan: Plan) -> CheckpointConfig:
    from scalellm_trt.checkpoint.write import checkpoint_config

    return checkpoint_config(plan.spec, plan.quantization, dtype=plan.dtype, tp_size=plan.tp_size, pp_size=plan.pp_size)
