"""What the text models of all backends share: the contract as typed tensors, and the tokens that end an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts.types import TritonTensor
from scalellm_trt.errors import ArtefactError
from scalellm_trt.runtime import signature

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.plan import Plan

ENTRY_MODULE: Final = "hosted_model"
TEXT_INPUTS: Final = tuple(TritonTensor(**tensor._asdict()) for tensor in signature.INPUTS)
TEXT_OUTPUTS: Final = tuple(TritonTensor(**tensor._asdict()) for tensor in signature.OUTPUTS)


def eos_token_ids(plan: Plan, engine_dir: Path) -> tuple[int, ...]:
    """Return the ids of config.json, then those that only generation_config.json names, as chat models often do.

    Raises:
        ArtefactError: the engine's generation_config.json cannot be read.
    """
    path = engine_dir / "generation_config.json"
    named: object = None
    if path.is_file():
        try:
            named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError) as error:
            message = f"{path}: cannot be read as a JSON object: {error}"
            raise ArtefactError(message, hint="Correct it in the model and build again.") from error
    extra = named if isinstance(named, list) else [named]
    ids = [*plan.spec.eos_token_ids, *(token_id for token_id in extra if isinstance(token_id, int))]
    return tuple(dict.fromkeys(ids))
