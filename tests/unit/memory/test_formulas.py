from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalellm_trt import facts, memory
from tests.fakes.planning import SMOLLM2

FLOAT16 = facts.kv_cache_formats()["openvino/float16"]
INT8 = facts.kv_cache_formats()["openvino/int8"]
LLAMA2_13B = dataclasses.replace(
    SMOLLM2,
    vocab_size=32000,
    hidden_size=5120,
    intermediate_size=13824,
    num_layers=40,
    num_heads=40,
    num_kv_heads=40,
    head_dim=128,
    tie_word_embeddings=False,
)


def test_kv_cache_bytes_per_token_equal_what_the_engine_was_seen_to_allocate() -> None:
    float32 = dataclasses.replace(FLOAT16, element_bytes=4)
    assert memory.kv_cache_bytes_per_token(SMOLLM2, FLOAT16, 32) == 23_040
    assert memory.kv_cache_bytes_per_token(SMOLLM2, INT8, 32) == 13_680
    assert memory.kv_cache_bytes_per_token(SMOLLM2, float32, 32) == 46_080


def test_kv_cache_of_a_published_model_has_its_published_size() -> None:
    assert memory.kv_cache_bytes_per_token(LLAMA2_13B, FLOAT16, 32) == 819_200


def test_kv_heads_are_shared_between_ranks_and_replicated_once_there_are_more_ranks() -> None:
    one, two, eight = (memory.kv_cache_bytes_per_token(SMOLLM2, FLOAT16, 32, tp_size=n) for n in (1, 2, 8))
    assert (two, eight) == (one * 2 // 3, one // 3)


def test_parameter_counts_and_weights_of_a_published_model_are_exact() -> None:
    assert LLAMA2_13B.num_linear_parameters == 12_687_769_600
    full = facts.weight_formats()["openvino/full_prec"]
    assert memory.linear_bytes(LLAMA2_13B, full, None, float_bytes=2, scale_bytes=4) == 2 * 12_687_769_600


def test_scales_are_counted_per_output_channel_or_per_group() -> None:
    rows = facts.weight_formats()
    linear, num_rows = SMOLLM2.num_linear_parameters, 30 * (576 + 2 * 192 + 576 + 2 * 1536 + 576)

    def size(name: str, group_size: int | None) -> int:
        return memory.linear_bytes(SMOLLM2, rows[f"openvino/{name}"], group_size, float_bytes=2, scale_bytes=4)

    assert size("int8_wo", None) == linear + 4 * num_rows
    assert size("int4_wo", None) == linear // 2 + 4 * num_rows
    assert size("int4_awq", 64) == linear // 2 + 4 * linear // 64


def test_native_weight_only_checkpoints_are_as_large_as_full_precision() -> None:
    rows = facts.weight_formats()
    sizes = [memory.checkpoint_bytes(SMOLLM2, rows[f"openvino/{n}"], None, "float16") for n in ("full_prec", "int8_wo")]
    assert sizes[0] == sizes[1] == 2 * (SMOLLM2.num_linear_parameters + 2 * 49152 * 576 + 61 * 576)
    assert memory.checkpoint_bytes(SMOLLM2, rows["openvino/int4_awq"], 64, "float16") < sizes[0]


@pytest.mark.parametrize(("num_tokens", "blocks"), [(1, 1), (32, 1), (33, 2)])
def test_blocks_are_whole(num_tokens: int, blocks: int) -> None:
    assert memory.num_blocks(num_tokens, 32) == blocks


def test_sizes_are_printed_in_the_unit_that_reads_best() -> None:
    assert memory.format_gib(3 << 29) == "1.5 GiB"
    assert memory.format_gib(3 << 19) == "1.5 MiB"


@given(st.integers(1, 64), st.sampled_from([FLOAT16, INT8]))
def test_a_block_never_shrinks_when_it_holds_more_tokens(tokens: int, kv: facts.KvCacheSupport) -> None:
    smaller = memory.kv_cache_bytes_per_block(SMOLLM2, kv, tokens)
    assert smaller < memory.kv_cache_bytes_per_block(SMOLLM2, kv, tokens + 1)
