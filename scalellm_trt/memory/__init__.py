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
from scalellm_trt.memory.tensorrt_llm import LARGEST_FREE_PERCENT, kv_tokens_that_fit
from scalellm_trt.memory.types import MemoryBudget, MemoryInputs, MemoryItem, Place, Stage
from scalellm_trt.memory.weights import Shard, TensorGroup, tensor_groups, total_bytes

__all__ = [
    "LARGEST_FREE_PERCENT",
    "MemoryBudget",
    "MemoryInputs",
    "MemoryItem",
    "Place",
    "Shard",
    "Stage",
    "TensorGroup",
    "activation_bytes_per_token",
    "budgets",
    "checkpoint_bytes",
    "format_gib",
    "kv_cache_bytes_per_block",
    "kv_cache_bytes_per_token",
    "kv_tokens_that_fit",
    "linear_bytes",
    "logits_bytes",
    "num_blocks",
    "tensor_groups",
    "total_bytes",
]
