"""What the text models of all backends share: the contract as typed tensors, and the tokens that end an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts.types import TritonTensor
from scalellm_trt.errors import ArtefactError
from scalellm_trt.runtime import signature
from scalellm_trt.runtime.settings import ServiceSettings

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.plan import Plan
    from scalellm_trt.runtime.settings import EngineName

ENTRY_MODULE: Final = "hosted_model"
TEXT_INPUTS: Final = tuple(TritonTensor(**tensor._asdict()) for tensor in signature.INPUTS)
TEXT_OUTPUTS: Final = tuple(TritonTensor(**tensor._asdict()) for tensor in signature.OUTPUTS)


def planned_settings(
    plan: Plan,
    *,
    engine: EngineName,
    engine_directory: str,
    end_ids: tuple[int, ...],
    engine_model: str | None = None,
) -> ServiceSettings:
    """Return what the code inside tritonserver needs to know of any engine; a backend replaces what is its own."""
    return ServiceSettings(
        engine=engine,
        engine_directory=engine_directory,
        engine_model=engine_model,
        vocab_size=plan.spec.vocab_size,
        eos_token_ids=end_ids,
        bos_token_id=plan.spec.bos_token_id,
        max_batch_size=plan.limits.max_batch_size,
        max_input_len=plan.limits.max_input_len,
        max_seq_len=plan.limits.max_seq_len,
        max_num_tokens=plan.limits.max_num_tokens,
        max_queue_size=plan.serving.max_queue_size,
        kv_cache_tokens=plan.serving.kv_cache_tokens,
        tokens_per_block=plan.serving.tokens_per_block,
        kv_cache_reuse=plan.serving.kv_cache_reuse,
        chunked_context=plan.serving.chunked_context,
        batch_scheduler_policy=plan.serving.batch_scheduler_policy,
    )


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
