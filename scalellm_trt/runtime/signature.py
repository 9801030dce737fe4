"""The tensors of the text model as plain data: NVIDIA's ensemble contract, and what is added to it.

Dimensions leave out the leading batch dimension of 1. Names, types and dimensions are those of
`all_models/inflight_batcher_llm/ensemble/config.pbtxt` in TensorRT-LLM 1.2, except where a comment says otherwise.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

DataType = Literal["TYPE_BOOL", "TYPE_INT32", "TYPE_UINT64", "TYPE_FP16", "TYPE_FP32", "TYPE_STRING"]


class Tensor(NamedTuple):
    """One input or output of the model. -1 is any length."""

    name: str
    data_type: DataType
    dims: tuple[int, ...] = (1,)
    optional: bool = True


INPUTS: tuple[Tensor, ...] = (
    # The prompt: exactly one of the two. The ensemble knows the first only, and there it is not optional.
    Tensor("text_input", "TYPE_STRING"),
    Tensor("input_ids", "TYPE_INT32", (-1,)),
    Tensor("max_tokens", "TYPE_INT32", optional=False),
    Tensor("stream", "TYPE_BOOL"),
    # How to choose tokens.
    Tensor("temperature", "TYPE_FP32"),
    Tensor("top_k", "TYPE_INT32"),
    Tensor("top_p", "TYPE_FP32"),
    Tensor("seed", "TYPE_UINT64"),
    Tensor("repetition_penalty", "TYPE_FP32"),
    Tensor("presence_penalty", "TYPE_FP32"),
    Tensor("frequency_penalty", "TYPE_FP32"),
    Tensor("min_tokens", "TYPE_INT32"),
    Tensor("min_length", "TYPE_INT32"),  # min_tokens in TensorRT-LLM up to 0.19
    Tensor("random_seed", "TYPE_UINT64"),  # seed in TensorRT-LLM up to 0.19
    Tensor("num_return_sequences", "TYPE_INT32"),
    Tensor("beam_width", "TYPE_INT32"),
    Tensor("length_penalty", "TYPE_FP32"),
    # Where to end.
    Tensor("stop_words", "TYPE_STRING", (-1,)),
    Tensor("bad_words", "TYPE_STRING", (-1,)),
    Tensor("end_id", "TYPE_INT32"),
    Tensor("pad_id", "TYPE_INT32"),
    # What to return.
    Tensor("exclude_input_in_output", "TYPE_BOOL"),
    Tensor("return_log_probs", "TYPE_BOOL"),
    Tensor("return_num_input_tokens", "TYPE_BOOL"),
    Tensor("return_num_output_tokens", "TYPE_BOOL"),
    Tensor("return_text", "TYPE_BOOL"),  # added: default true for text_input, false for input_ids
    Tensor("return_output_ids", "TYPE_BOOL"),  # added: default false for text_input, true for input_ids
    Tensor("return_context_logits", "TYPE_BOOL"),
    Tensor("return_generation_logits", "TYPE_BOOL"),
    Tensor("return_perf_metrics", "TYPE_BOOL"),  # of the measures, kv_cache_reused_blocks
    # What only some engines can do.
    Tensor("decoder_text_input", "TYPE_STRING"),
    Tensor("embedding_bias_words", "TYPE_STRING", (-1,)),
    Tensor("embedding_bias_ids", "TYPE_INT32", (-1,)),  # added: tokens in place of words
    Tensor("embedding_bias_weights", "TYPE_FP32", (-1,)),
    Tensor("guided_decoding_guide_type", "TYPE_STRING"),
    Tensor("guided_decoding_guide", "TYPE_STRING"),
    Tensor("lora_task_id", "TYPE_UINT64"),
    Tensor("lora_weights", "TYPE_FP16", (-1, -1)),
    Tensor("lora_config", "TYPE_INT32", (-1, 3)),
    Tensor("prompt_embedding_table", "TYPE_FP16", (-1, -1)),
    Tensor("prompt_table_extra_id", "TYPE_UINT64"),
    Tensor("prompt_vocab_size", "TYPE_INT32"),
)
"""Everything that a request may hold."""

OUTPUTS: tuple[Tensor, ...] = (
    Tensor("text_output", "TYPE_STRING", (-1,), optional=False),
    Tensor("output_ids", "TYPE_INT32", (-1, -1), optional=False),  # as the tensorrt_llm model: (sequences, tokens)
    Tensor("sequence_length", "TYPE_INT32", (-1,), optional=False),  # as the tensorrt_llm model
    Tensor("finish_reason", "TYPE_STRING", (-1,), optional=False),  # added: on a sequence's last response
    Tensor("cum_log_probs", "TYPE_FP32", (-1,), optional=False),
    Tensor("output_log_probs", "TYPE_FP32", (-1, -1), optional=False),
    Tensor("num_input_tokens", "TYPE_INT32", optional=False),
    Tensor("num_output_tokens", "TYPE_INT32", (-1,), optional=False),  # one for each sequence of the response
    Tensor("kv_cache_reused_blocks", "TYPE_INT32", optional=False),  # on a stream's first response
    Tensor("batch_index", "TYPE_INT32", optional=False),
    Tensor("sequence_index", "TYPE_INT32", (-1,), optional=False),  # one for each sequence of the response
)
"""Everything that a response may hold; which of them it holds depends on what the request asks for."""
