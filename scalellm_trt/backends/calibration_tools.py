"""What a calibrated checkpoint depends on besides the plan: libraries and text; and whether the libraries are here."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts import digest

if TYPE_CHECKING:
    from scalellm_trt.artefacts.manifest import Scalar
    from scalellm_trt.plan import Plan

# Distribution → module.
TOOLS: Final = {"nvidia-modelopt": "modelopt", "torch": "torch", "transformers": "transformers"}
INSTALL: Final = "pip install 'scalellm-trt[quantize]'"


def stage_inputs(plan: Plan) -> dict[str, Scalar]:
    """Return the libraries' versions and the digest of the text; nothing for a checkpoint that needs no calibration.

    A library that is not there counts as a version of its own.

    Raises:
        RecipeError: the text cannot be read.
    """
    if plan.quantization.calibration is None:
        return {}
    from scalellm_trt.checkpoint.calibration import load_texts

    inputs: dict[str, Scalar] = {f"tool.{name}": version(name) for name in TOOLS}
    inputs["quantization.calibration.texts"] = digest.of_value(load_texts(plan.quantization.calibration.source))
    return inputs


def missing(weights: str) -> list[str]:
    """Say what a calibration cannot start without; importing the libraries takes seconds, so it is not tried."""
    absent = [name for name, module in TOOLS.items() if importlib.util.find_spec(module) is None]
    if not absent:
        return []
    verb = "is" if len(absent) == 1 else "are"
    return [f"{', '.join(absent)} {verb} not installed, which {weights} is calibrated with: {INSTALL}"]


def version(distribution: str) -> str:
    """Return a distribution's version."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
