"""Bytes of weights, KV cache, activations, buffers, host RAM and disk: pure arithmetic, formulas cited.

`types` holds the values, `formulas` what every backend shares, one file per engine its budgets.
"""

from scalellm_trt.memory.budgets import budgets
from scalellm_trt.memory.formulas import (
    activation_bytes_per_token,
    checkpoint_bytes,
    format_gib,
    kv_cache_bytes_per_block,
    kv_cache_bytes_per_token,
    linear_bytes,
    logits_bytes,
    num_blocks,
)
from scalellm_trt.memory.types import MemoryBudget, MemoryInputs, MemoryItem, Place, Stage

__all__ = [
    "MemoryBudget",
    "MemoryInputs",
    "MemoryItem",
    "Place",
    "Stage",
    "activation_bytes_per_token",
    "budgets",
    "checkpoint_bytes",
    "format_gib",
    "kv_cache_bytes_per_block",
    "kv_cache_bytes_per_token",
    "linear_bytes",
    "logits_bytes",
    "num_blocks",
]
