"""The tensors of Triton's C++ `tensorrtllm` backend, by generation: every name, type, shape and flag.

`1.x` is `all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt` of TensorRT-LLM 1.0 to 1.2; `0.13` is that of
tensorrtllm_backend v0.13.0. An input that is not listed cannot be sent, an output that is not listed is not returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalellm_trt.artefacts.types import TritonTensor

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import TritonDataType
    from scalellm_trt.runtime.settings import EngineContract

FILLER: Final = "TYPE_FP16"
"""Type of inputs that decoder-only models do not have, but whose type the file must name."""


def inputs(contract: EngineContract, logits: TritonDataType) -> tuple[TritonTensor, ...]:
    """Return the inputs of the generation; `logits` is the type of the engine's logits."""
    return _inputs_1x(logits) if contract == "1.x" else _inputs_013()


def outputs(contract: EngineContract, logits: TritonDataType) -> tuple[TritonTensor, ...]:
    """Return the outputs of the generation."""
    return _outputs_1x(logits) if contract == "1.x" else _outputs_013()


def _inputs_1x(logits: TritonDataType) -> tuple[TritonTensor, ...]:
    return (
        *_lists("TYPE_INT32", "input_ids"),
        *_scalars("TYPE_INT32", "input_lengths", "request_output_len", optional=False),
        *_scalars("TYPE_INT32", "num_return_sequences"),
        *_lists("TYPE_INT32", "draft_input_ids", "decoder_input_ids"),
        *_scalars("TYPE_INT32", "decoder_input_lengths"),
        *_lists(logits, "draft_logits", dims=(-1, -1)),
        *_scalars("TYPE_FP32", "draft_acceptance_threshold"),
        *_scalars("TYPE_INT32", "end_id", "pad_id"),
        *_lists("TYPE_INT32", "stop_words_list", "bad_words_list", dims=(2, -1)),
        *_lists("TYPE_FP32", "embedding_bias"),
        *_scalars("TYPE_INT32", "beam_width"),
        *_scalars("TYPE_FP32", "temperature"),
        *_scalars("TYPE_INT32", "runtime_top_k"),
        *_scalars("TYPE_FP32", "runtime_top_p", "runtime_top_p_min", "runtime_top_p_decay"),
        *_scalars("TYPE_INT32", "runtime_top_p_reset_ids"),
        *_scalars("TYPE_FP32", "len_penalty"),
        *_scalars("TYPE_BOOL", "early_stopping"),
        *_scalars("TYPE_FP32", "repetition_penalty"),
        *_scalars("TYPE_INT32", "min_tokens"),
        *_scalars("TYPE_FP32", "beam_search_diversity_rate", "presence_penalty", "frequency_penalty"),
        *_scalars("TYPE_UINT64", "seed"),
        *_scalars(
            "TYPE_BOOL",
            *("return_log_probs", "return_context_logits", "return_generation_logits", "return_perf_metrics"),
            *("exclude_input_in_output", "return_num_input_tokens", "return_num_output_tokens", "stop", "streaming"),
        ),
        *_lists(FILLER, "prompt_embedding_table", dims=(-1, -1)),
        *_lists("TYPE_UINT64", "prompt_table_extra_ids"),
        *_scalars("TYPE_INT32", "prompt_vocab_size"),
        *_plain("TYPE_FP32", "mrope_rotary_cos_sin", dims=(-1,)),
        *_plain("TYPE_INT64", "mrope_position_deltas", dims=(1,)),
        *_scalars("TYPE_UINT64", "lora_task_id"),
        *_lists("TYPE_FP16", "lora_weights", dims=(-1, -1)),
        *_lists("TYPE_INT32", "lora_config", dims=(-1, 3)),
        *_lists("TYPE_UINT8", "context_phase_params"),
        *_lists(FILLER, "encoder_input_features", dims=(-1, -1)),
        *_scalars("TYPE_INT32", "encoder_output_lengths"),
        *_lists("TYPE_BOOL", "cross_attention_mask", dims=(-1, -1)),
        *_lists("TYPE_BOOL", "skip_cross_attn_blocks", dims=(1,)),
        *_lists(
            "TYPE_INT32",
            *("retention_token_range_starts", "retention_token_range_ends", "retention_token_range_priorities"),
            "retention_token_range_durations_ms",
        ),
        *_lists("TYPE_INT32", "retention_decode_priority", "retention_decode_duration_ms", dims=(1,)),
        *_lists("TYPE_STRING", "guided_decoding_guide_type", "guided_decoding_guide", dims=(1,)),
        *_lists(
            "TYPE_INT32",
            *("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size"),
            dims=(1,),
        ),
    )


def _inputs_013() -> tuple[TritonTensor, ...]:
    return (
        *_lists("TYPE_INT32", "input_ids", optional=False),
        *_scalars("TYPE_INT32", "input_lengths", "request_output_len", optional=False),
        *_lists("TYPE_INT32", "draft_input_ids", "decoder_input_ids"),
        *_scalars("TYPE_INT32", "decoder_input_lengths"),
        *_lists("TYPE_FP32", "draft_logits", dims=(-1, -1)),
        *_scalars("TYPE_FP32", "draft_acceptance_threshold"),
        *_scalars("TYPE_INT32", "end_id", "pad_id"),
        *_lists("TYPE_INT32", "stop_words_list", "bad_words_list", dims=(2, -1)),
        *_lists("TYPE_FP32", "embedding_bias"),
        *_scalars("TYPE_INT32", "beam_width"),
        *_scalars("TYPE_FP32", "temperature"),
        *_scalars("TYPE_INT32", "runtime_top_k"),
        *_scalars("TYPE_FP32", "runtime_top_p", "runtime_top_p_min", "runtime_top_p_decay"),
        *_scalars("TYPE_INT32", "runtime_top_p_reset_ids"),
        *_scalars("TYPE_FP32", "len_penalty"),
        *_scalars("TYPE_BOOL", "early_stopping"),
        *_scalars("TYPE_FP32", "repetition_penalty"),
        *_scalars("TYPE_INT32", "min_length"),
        *_scalars("TYPE_FP32", "beam_search_diversity_rate", "presence_penalty", "frequency_penalty"),
        *_scalars("TYPE_UINT64", "random_seed"),
        *_scalars(
            "TYPE_BOOL",
            *("return_log_probs", "return_context_logits", "return_generation_logits", "stop", "streaming"),
        ),
        *_lists("TYPE_FP16", "prompt_embedding_table", dims=(-1, -1)),
        *_lists("TYPE_UINT64", "prompt_table_extra_ids"),
        *_scalars("TYPE_INT32", "prompt_vocab_size"),
        *_scalars("TYPE_UINT64", "lora_task_id"),
        *_lists("TYPE_FP16", "lora_weights", dims=(-1, -1)),
        *_lists("TYPE_INT32", "lora_config", dims=(-1, 3)),
    )


def _outputs_1x(logits: TritonDataType) -> tuple[TritonTensor, ...]:
    return (
        *_answer(logits),
        *_output("TYPE_INT32", (1,), "batch_index", "sequence_index"),
        *_output("TYPE_UINT8", (-1,), "context_phase_params"),
        *_output(
            "TYPE_INT32",
            (1,),
            *("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks"),
        ),
        *_output(
            "TYPE_INT64",
            (1,),
            *("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns"),
        ),
        *_output("TYPE_FP32", (1,), "acceptance_rate"),
        *_output(
            "TYPE_INT32",
            (1,),
            *("total_accepted_draft_tokens", "total_draft_tokens", "num_input_tokens", "num_output_tokens"),
        ),
    )


def _outputs_013() -> tuple[TritonTensor, ...]:
    return (*_answer("TYPE_FP32"), *_output("TYPE_INT32", (1,), "batch_index"))


def _answer(logits: TritonDataType) -> tuple[TritonTensor, ...]:
    """Return what every generation gives out."""
    return (
        *_output("TYPE_INT32", (-1, -1), "output_ids"),
        *_output("TYPE_INT32", (-1,), "sequence_length"),
        *_output("TYPE_FP32", (-1,), "cum_log_probs"),
        *_output("TYPE_FP32", (-1, -1), "output_log_probs"),
        *_output(logits, (-1, -1), "context_logits"),
        *_output(logits, (-1, -1, -1), "generation_logits"),
    )


def _scalars(data_type: TritonDataType, *names: str, optional: bool = True) -> list[TritonTensor]:
    """Return inputs of one value a request, which the backend sees without a dimension."""
    return [
        TritonTensor(name=name, data_type=data_type, dims=(1,), optional=optional, is_scalar=True) for name in names
    ]


def _lists(
    data_type: TritonDataType, *names: str, dims: tuple[int, ...] = (-1,), optional: bool = True
) -> list[TritonTensor]:
    """Return inputs that may have another length in each request of a batch."""
    return [
        TritonTensor(name=name, data_type=data_type, dims=dims, optional=optional, is_ragged=True) for name in names
    ]


def _plain(data_type: TritonDataType, *names: str, dims: tuple[int, ...]) -> list[TritonTensor]:
    return [TritonTensor(name=name, data_type=data_type, dims=dims, optional=True) for name in names]


def _output(data_type: TritonDataType, dims: tuple[int, ...], *names: str) -> list[TritonTensor]:
    return [TritonTensor(name=name, data_type=data_type, dims=dims) for name in names]
