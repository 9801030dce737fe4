"""Limits and scheduling with nothing left open, checked against the model and against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import memory
from scalellm_trt.plan.types import LimitsPlan, ServingPlan

if TYPE_CHECKING:
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.plan.notes import Notes
    from scalellm_trt.plan.rows import Rows
    from scalellm_trt.recipe import Recipe


def resolve_limits(recipe: Recipe, spec: ModelSpec, notes: Notes) -> LimitsPlan:
    """Settle the lengths; contradictions go to `notes`."""
    limits = recipe.limits
    if limits.max_seq_len > spec.max_position_embeddings:
        message = f"{limits.max_seq_len} is more than the {spec.max_position_embeddings} positions of the model"
        hint = f"Set limits.max_seq_len to at most {spec.max_position_embeddings}."
        notes.refuse("limits.max_seq_len", message, hint)
    max_input_len = limits.max_input_len
    if max_input_len is None:
        max_input_len = max(1, limits.max_seq_len - 1)
        notes.decide("limits.max_input_len", max_input_len, "max_seq_len - 1: room for one token of answer at least")
    elif max_input_len >= limits.max_seq_len:
        message = f"{max_input_len} leaves no room for an answer within max_seq_len {limits.max_seq_len}"
        hint = f"Set it to at most {limits.max_seq_len - 1}, or raise limits.max_seq_len."
        notes.refuse("limits.max_input_len", message, hint)
    _check_step(recipe, max_input_len, notes)
    return LimitsPlan(
        max_batch_size=limits.max_batch_size,
        max_input_len=max_input_len,
        max_seq_len=limits.max_seq_len,
        max_num_tokens=limits.max_num_tokens,
    )


def resolve_serving(recipe: Recipe, spec: ModelSpec, rows: Rows, notes: Notes) -> ServingPlan:
    """Settle scheduling and the KV pool, in whole blocks; a pool that is too small goes to `notes`."""
    serving, tokens_per_block = recipe.serving, rows.toolchain.tokens_per_block
    blocks = _kv_blocks(recipe, tokens_per_block, notes, spare=0 if rows.toolchain.gpu is None else 1)
    ranks = recipe.parallel
    block_bytes = memory.kv_cache_bytes_per_block(spec, rows.kv, tokens_per_block, ranks.tp_size, ranks.pp_size)
    return ServingPlan(
        batch_scheduler_policy=serving.batch_scheduler_policy,
        kv_cache_reuse=serving.kv_cache_reuse,
        chunked_context=serving.chunked_context,
        kv_cache_tokens=blocks * tokens_per_block,
        kv_cache_bytes=blocks * block_bytes,
        tokens_per_block=tokens_per_block,
        max_queue_size=serving.max_queue_size,
    )


def _check_step(recipe: Recipe, max_input_len: int, notes: Notes) -> None:
    """Check that one step can hold what the scheduler must put into it."""
    max_num_tokens, max_batch_size = recipe.limits.max_num_tokens, recipe.limits.max_batch_size
    if max_num_tokens < max_batch_size:
        message = f"{max_num_tokens} tokens in a step cannot give each of {max_batch_size} sequences its next one"
        hint = f"Set limits.max_num_tokens to at least {max_batch_size}, or lower limits.max_batch_size."
        notes.refuse("limits.max_num_tokens", message, hint)
    if recipe.serving.chunked_context:
        notes.decide("serving.chunked_context", "true", f"prompts over {max_num_tokens} tokens take several steps")
        return
    if max_num_tokens < max_input_len:
        message = f"{max_num_tokens} tokens in a step do not hold a prompt of max_input_len {max_input_len}"
        hint = f"Set serving.chunked_context: true, or limits.max_num_tokens to at least {max_input_len}."
        notes.refuse("limits.max_num_tokens", message, hint)
    notes.decide("serving.chunked_context", "false", "every prompt fits into one step")


def _kv_blocks(recipe: Recipe, tokens_per_block: int, notes: Notes, *, spare: int) -> int:
    """Return the pool of one service in whole blocks.

    `spare` blocks are wanted beyond one sequence: with less, TensorRT-LLM shortens the attention window without a word
    (estimate, from its source).
    """
    key, limits = "serving.kv_cache_tokens", recipe.limits
    per_sequence = memory.num_blocks(limits.max_seq_len, tokens_per_block)
    wanted = recipe.serving.kv_cache_tokens
    if wanted is None:
        blocks = limits.max_batch_size * per_sequence + spare
        reason = f"max_batch_size {limits.max_batch_size} x max_seq_len {limits.max_seq_len}: nobody waits for blocks"
        notes.decide(key, blocks * tokens_per_block, reason)
        return blocks
    blocks = memory.num_blocks(wanted, tokens_per_block)
    if blocks < per_sequence + spare:
        needed = (per_sequence + spare) * tokens_per_block
        message = f"{wanted} does not hold one sequence of max_seq_len {limits.max_seq_len}"
        message += f" and {spare} spare block of {tokens_per_block}" if spare else ""
        hint = f"Set it to at least {needed}, or lower limits.max_seq_len."
        notes.refuse(key, message, hint)
    full = blocks // per_sequence
    reason = f"whole blocks of {tokens_per_block} tokens; holds {full} of max_batch_size {limits.max_batch_size}"
    notes.decide(key, blocks * tokens_per_block, f"{reason} sequences of max_seq_len {limits.max_seq_len} at once")
    return blocks
