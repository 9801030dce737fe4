"""What a user should know about the card, the image and the model before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts

if TYPE_CHECKING:
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.plan.rows import Rows
    from scalellm_trt.recipe import Recipe

UNGATED_HINT = "recipes/rtx4090-open.yaml has a model that needs neither"
SLOW_PREFILL_S = 1.0


def say(recipe: Recipe, spec: ModelSpec, rows: Rows, notes: Notes) -> None:
    """Note what is special about card, image and model."""
    _say_gated(recipe, notes)
    hardware = rows.hardware
    if hardware.kind == "cpu":
        return
    if hardware.is_geforce:
        reason = (
            f"GeForce: 16-bit matrices at half rate with 32-bit accumulation, {hardware.tflops['fp16']:g} TFLOPS; a "
            "display on the card takes 0.5 to 1 GiB, of which the margin covers no more than the lower end"
        )
        notes.warn("hardware", hardware.name, reason)
    if hardware.sustained_fp16_tflops is not None:
        _say_power_cap(recipe, spec, rows, notes)
    if rows.toolchain.gpu is not None:
        notes.warn("toolchain", rows.toolchain.gpu.image.rsplit("/", 1)[1], rows.toolchain.gpu.image_note)


def _say_gated(recipe: Recipe, notes: Notes) -> None:
    row = facts.model_from(recipe.model.source)
    if row is None or not row.is_gated:
        return
    reason = (
        f"its files want a Hugging Face account that accepted the terms ({row.license}) and its token in HF_TOKEN; "
        + UNGATED_HINT
    )
    notes.warn("model.source", recipe.model.source, reason)


def _say_power_cap(recipe: Recipe, spec: ModelSpec, rows: Rows, notes: Notes) -> None:
    """Say how long the longest prompt takes at the rate that the power cap leaves.

    Formula: 2 * active matrix weights * max_input_len / (sustained rate * MFU); attention is left out.
    """
    hardware = rows.hardware
    assert hardware.sustained_fp16_tflops is not None, "asked for by the caller"
    tokens = recipe.limits.max_input_len or recipe.limits.max_seq_len - 1
    rate = hardware.sustained_fp16_tflops * 1e12 * hardware.mfu_prefill["weight_only"]
    seconds = 2 * spec.num_active_linear_parameters * tokens / rate
    reason = (
        f"its {hardware.tdp_watts} W hold it at {hardware.sustained_fp16_tflops:g} of {hardware.tflops['fp16']:g} "
        f"TFLOPS: a prompt of {tokens} tokens takes about {seconds:.1f} s (estimate)"
    )
    if seconds > SLOW_PREFILL_S:
        reason += "; a 7B model serves this card better than a 13B one"
    notes.warn("hardware", hardware.name, reason)
