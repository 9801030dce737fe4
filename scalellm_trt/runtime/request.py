"""A request of the text model in, what the engine is to generate and what the client wants to see of it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from .engine_api import GenerateRequest, InvalidRequestError, SamplingParams
from .inputs import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .inputs import Inputs
    from .settings import ServiceSettings
    from .tokenizer import PromptTokenizer

_Number = TypeVar("_Number", int, float)

_MAX_INT32 = 2**31 - 1
_MIN_TEMPERATURE = 1e-5
_MAX_WORDS = 64
_MAX_WORD_BYTES = 1024
_MAX_BIASES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """What the client wants to see.

    Attributes:
        stream: new tokens as they come; otherwise one response at the end.
        text: send `text_output`.
        output_ids: send `output_ids` and `sequence_length`.
        log_probs: send `output_log_probs` and `cum_log_probs`.
        num_input_tokens: send the count of prompt tokens.
        num_output_tokens: send the count of new tokens in each response.
        reuse: send `kv_cache_reused_blocks`.
        sequence_index: send `sequence_index` and `batch_index`.
        stop_words: texts that end the answer; neither they nor a part of them is shown.
        min_tokens: a stop word counts only in the text after this many tokens.
        prompt_text: goes in front of the answer's text.
        prompt_ids: go in front of the answer's ids.
        pad_id: fills up the shorter rows of `output_ids`.
    """

    stream: bool = False
    text: bool = True
    output_ids: bool = False
    log_probs: bool = False
    num_input_tokens: bool = False
    num_output_tokens: bool = False
    reuse: bool = False
    sequence_index: bool = False
    stop_words: tuple[str, ...] = ()
    min_tokens: int = 0
    prompt_text: str = ""
    prompt_ids: tuple[int, ...] = ()
    pad_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest:
    """A request that was understood."""

    generate: GenerateRequest
    options: AnswerOptions


def parse(
    inputs: Inputs, tokenizer: PromptTokenizer, settings: ServiceSettings, unsupported: Mapping[str, str]
) -> TextRequest:
    """Understand a request.

    Args:
        inputs: the request's tensors.
        tokenizer: turns `text_input` into ids.
        settings: limits and defaults of the service.
        unsupported: input → why this engine refuses it.

    Raises:
        InvalidRequestError: an input is missing, wrong or refused; the message begins with its name.
    """
    for name, reason in unsupported.items():
        if inputs.asks_for(name):
            message = f"{name}: {reason}"
            raise InvalidRequestError(message)
    if inputs.integer("beam_width", low=0, high=_MAX_INT32) not in (None, 1):
        raise InvalidRequestError("beam_width: this engine has no beam search; the only width is 1")
    prompt = _prompt(inputs, tokenizer, settings)
    sampling = _sampling(inputs, tokenizer, settings)
    options = _options(inputs, settings, sampling, prompt)
    generate = GenerateRequest(
        input_ids=prompt.ids,
        sampling=sampling,
        prompt_field=prompt.field,
        is_stream=options.stream or bool(options.stop_words),  # a stop word ends the answer where it is seen
        reports_reuse=options.reuse,
    )
    return TextRequest(generate=generate, options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    """The prompt, and the input that it came in."""

    field: Literal["text_input", "input_ids"]
    text: Callable[[], str]
    ids: tuple[int, ...]


def _prompt(inputs: Inputs, tokenizer: PromptTokenizer, settings: ServiceSettings) -> _Prompt:
    """Read the prompt, of which a client gives text or ids."""
    ids, text = inputs.ids("input_ids", max_count=settings.max_input_len), inputs.text("text_input")
    if ids is not None and text is not None:
        raise InvalidRequestError("input_ids: must not be given together with text_input")
    if ids is not None:
        return _Prompt(field="input_ids", text=lambda: tokenizer.token_bytes.decode(ids), ids=ids)
    if text is None:
        raise InvalidRequestError("text_input: is missing; give it or input_ids")
    max_bytes = settings.max_input_len * tokenizer.longest_token_bytes
    if len(text) > max_bytes:
        message = (
            f"text_input: {len(text)} bytes cannot be max_input_len ({settings.max_input_len}) tokens or fewer; "
            f"a token stands for at most {tokenizer.longest_token_bytes} bytes"
        )
        raise InvalidRequestError(message)
    prompt = decode("text_input", text)
    return _Prompt(field="text_input", text=lambda: prompt, ids=tokenizer.encode(prompt))


def _sampling(inputs: Inputs, tokenizer: PromptTokenizer, settings: ServiceSettings) -> SamplingParams:
    """Read how tokens are to be chosen."""
    max_tokens = inputs.integer("max_tokens", low=1, high=_MAX_INT32)
    if max_tokens is None:
        raise InvalidRequestError("max_tokens: is missing")
    temperature, top_k, top_p = _randomness(inputs, settings)
    min_name = "min_tokens" if inputs.has("min_tokens") else "min_length"
    seed_name = "seed" if inputs.has("seed") else "random_seed"
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=inputs.integer(min_name, low=0, high=max_tokens) or 0,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=inputs.integer(seed_name, low=0, high=2**64 - 1),
        repetition_penalty=_positive(inputs, "repetition_penalty", default=1.0),
        presence_penalty=inputs.real("presence_penalty", low=-2, high=2) or 0.0,
        frequency_penalty=inputs.real("frequency_penalty", low=-2, high=2) or 0.0,
        num_sequences=_or(inputs.integer("num_return_sequences", low=1, high=settings.max_batch_size), 1),
        stop_token_ids=_stop_token_ids(inputs, settings),
        stop_word_ids=tokenizer.token_bytes.ids_of(_words(inputs, "stop_words")),
        bad_words=bad_word_ids(_words(inputs, "bad_words"), tokenizer),
        token_bias=_token_bias(inputs, tokenizer, settings),
        log_probs=inputs.flag("return_log_probs", default=False),
    )


def _randomness(inputs: Inputs, settings: ServiceSettings) -> tuple[float | None, int | None, float | None]:
    """Return temperature, top_k and top_p; temperature None is greedy.

    A temperature below `_MIN_TEMPERATURE` is greedy, as 0 is: logits divided by less leave the range of float32.
    As in TensorRT-LLM, top_k 0 and top_p 0 mean "not given", and top_k 1 is greedy. Without any of the three the
    answer is greedy; with one of the other two the temperature is 1.
    """
    temperature = inputs.real("temperature", low=0, high=100)
    top_k = inputs.integer("top_k", low=0, high=_MAX_INT32) or None
    top_p = inputs.real("top_p", low=0, high=1) or None
    is_cold = temperature is not None and temperature < _MIN_TEMPERATURE
    if is_cold or top_k == 1 or temperature is top_k is top_p is None:
        return None, None, None
    if top_k is not None and top_k >= settings.vocab_size:
        top_k = None
    return _or(temperature, 1.0), top_k, None if top_p == 1 else top_p


def _stop_token_ids(inputs: Inputs, settings: ServiceSettings) -> frozenset[int]:
    """Return the ids that end an answer: `end_id` if given, none if it is -1, else the model's."""
    end_id = inputs.integer("end_id", low=-1, high=settings.vocab_size - 1)
    if end_id is None:
        return frozenset(settings.eos_token_ids)
    return frozenset() if end_id == -1 else frozenset([end_id])


def _words(inputs: Inputs, name: str) -> tuple[str, ...]:
    return inputs.texts(name, max_count=_MAX_WORDS, max_bytes=_MAX_WORD_BYTES)


def bad_word_ids(words: Iterable[str], tokenizer: PromptTokenizer) -> tuple[tuple[int, ...], ...]:
    """Return the ids of each bad word as it begins a text and as it follows a space: those are different tokens."""
    variants = [f"{space}{word}" for word in words for space in ("", " ")]
    encoded = dict.fromkeys(tokenizer.encode_word(variant) for variant in variants)
    return tuple(ids for ids in encoded if ids)


def _token_bias(inputs: Inputs, tokenizer: PromptTokenizer, settings: ServiceSettings) -> tuple[tuple[int, float], ...]:
    """Return tokens with the weight at their place: the tokens of each word, or those given as ids."""
    words = _words(inputs, "embedding_bias_words")
    ids = inputs.ids("embedding_bias_ids", max_count=_MAX_BIASES) or ()
    if words and ids:
        raise InvalidRequestError("embedding_bias_ids: must not be given together with embedding_bias_words")
    if ids and not 0 <= min(ids) <= max(ids) < settings.vocab_size:
        message = f"embedding_bias_ids: must lie between 0 and {settings.vocab_size - 1}"
        raise InvalidRequestError(message)
    biased = [tokenizer.encode_word(word) for word in words] or [(token_id,) for token_id in ids]
    weights = inputs.reals("embedding_bias_weights", max_count=_MAX_BIASES)
    if len(biased) != len(weights):
        kind = "ids" if ids else "words"
        message = (
            f"embedding_bias_weights: must hold one value for each of the {len(biased)} {kind}, found {len(weights)}"
        )
        raise InvalidRequestError(message)
    pairs = [(token_id, weight) for group, weight in zip(biased, weights, strict=True) for token_id in group]
    return tuple(pair for pair in pairs if pair[0] < settings.vocab_size)


def _options(inputs: Inputs, settings: ServiceSettings, sampling: SamplingParams, prompt: _Prompt) -> AnswerOptions:
    """Read what the client wants to see."""
    stream = inputs.flag("stream", default=False)
    has_ids = prompt.field == "input_ids"
    # As in TensorRT-LLM, a stream never repeats the prompt.
    with_prompt = not stream and not inputs.flag("exclude_input_in_output", default=settings.exclude_input_in_output)
    end_id = min(sampling.stop_token_ids, default=settings.eos_token_ids[0])
    return AnswerOptions(
        stream=stream,
        text=inputs.flag("return_text", default=not has_ids),
        output_ids=inputs.flag("return_output_ids", default=has_ids),
        log_probs=sampling.log_probs,
        num_input_tokens=inputs.flag("return_num_input_tokens", default=False),
        num_output_tokens=inputs.flag("return_num_output_tokens", default=False),
        reuse=inputs.flag("return_perf_metrics", default=False),
        sequence_index=inputs.has("num_return_sequences"),
        stop_words=_words(inputs, "stop_words"),
        min_tokens=sampling.min_tokens,
        prompt_text=prompt.text() if with_prompt else "",
        prompt_ids=prompt.ids if with_prompt else (),
        pad_id=_or(inputs.integer("pad_id", low=-1, high=settings.vocab_size - 1), end_id),
    )


def _positive(inputs: Inputs, name: str, *, default: float) -> float:
    """Return a number greater than 0."""
    value = _or(inputs.real(name, low=0), default)
    if value == 0:
        message = f"{name}: must be greater than 0"
        raise InvalidRequestError(message)
    return value


def _or(value: _Number | None, default: _Number) -> _Number:
    return default if value is None else value
