"""May the engine take this request at all? Decided before the engine sees it, where a refusal harms nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine_api import InvalidRequestError

if TYPE_CHECKING:
    from .engine_api import GenerateRequest
    from .settings import ServiceSettings


def num_blocks(num_tokens: int, tokens_per_block: int) -> int:
    """Return the KV cache pages that `num_tokens` cached tokens occupy."""
    return -(-num_tokens // tokens_per_block)


def max_cached_tokens(request: GenerateRequest) -> int:
    """Return how many tokens of one sequence the KV cache may have to hold: the last token is never fed back."""
    return len(request.input_ids) + request.sampling.max_tokens - 1


def check(request: GenerateRequest, settings: ServiceSettings) -> None:
    """Compare a request with the limits of the service.

    Raises:
        InvalidRequestError: it can never be served; the message names the field and the limit.
    """
    _check_prompt(request, settings)
    _check_sampling(request, settings)
    prompt_len, max_tokens = len(request.input_ids), request.sampling.max_tokens
    if prompt_len + max_tokens > settings.max_seq_len:
        message = (
            f"max_tokens: a prompt of {prompt_len} tokens and {max_tokens} new ones make {prompt_len + max_tokens}, "
            f"more than max_seq_len ({settings.max_seq_len}); at most {settings.max_seq_len - prompt_len} are possible"
        )
        raise InvalidRequestError(message)
    if max_cached_tokens(request) > settings.kv_cache_tokens:
        message = (
            f"max_tokens: a prompt of {prompt_len} tokens and {max_tokens} new ones need {max_cached_tokens(request)} "
            f"tokens of KV cache, more than kv_cache_tokens ({settings.kv_cache_tokens}); "
            f"at most {settings.kv_cache_tokens - prompt_len + 1} are possible"
        )
        raise InvalidRequestError(message)


def _check_prompt(request: GenerateRequest, settings: ServiceSettings) -> None:
    """Check length and ids of the prompt."""
    field, prompt_len = request.prompt_field, len(request.input_ids)
    if not prompt_len:
        message = f"{field}: the prompt is empty; at least 1 token is needed"
        raise InvalidRequestError(message)
    if prompt_len > settings.max_input_len:
        message = f"{field}: {prompt_len} tokens are more than max_input_len ({settings.max_input_len})"
        raise InvalidRequestError(message)
    if prompt_len > settings.max_num_tokens and not settings.chunked_context:
        message = (
            f"{field}: {prompt_len} tokens are more than max_num_tokens ({settings.max_num_tokens}) "
            "allows in one step; this service does not split prompts (chunked_context is off)"
        )
        raise InvalidRequestError(message)
    worst = min(request.input_ids) if min(request.input_ids) < 0 else max(request.input_ids)
    if not 0 <= worst < settings.vocab_size:
        message = f"{field}: token id {worst} is outside the vocabulary (0 to {settings.vocab_size - 1})"
        raise InvalidRequestError(message)


def _check_sampling(request: GenerateRequest, settings: ServiceSettings) -> None:
    """Check counts that depend on each other or on the service."""
    sampling = request.sampling
    if sampling.max_tokens < 1:
        message = f"max_tokens: must be at least 1, found {sampling.max_tokens}"
        raise InvalidRequestError(message)
    if not 0 <= sampling.min_tokens <= sampling.max_tokens:
        message = f"min_tokens: must lie between 0 and max_tokens ({sampling.max_tokens}), found {sampling.min_tokens}"
        raise InvalidRequestError(message)
    if not 1 <= sampling.num_sequences <= settings.max_batch_size:
        message = (
            f"num_return_sequences: must lie between 1 and max_batch_size ({settings.max_batch_size}), "
            f"found {sampling.num_sequences}"
        )
        raise InvalidRequestError(message)
