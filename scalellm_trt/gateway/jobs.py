"""A checked request in, what the engine is to generate out: model, prompt as tokens, limits, sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import tensors
from scalellm_trt.gateway.errors import OPENAI_FIELDS, ApiError, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.schemas import ChatRequest, CompletionRequest, PredictRequest
    from scalellm_trt.gateway.served import GatewayModel
    from scalellm_trt.gateway.tensors import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request, understood.

    Attributes:
        include_usage: end a stream with the usage.
    """

    model: GatewayModel
    generation: Generation
    stream: bool
    include_usage: bool


def find_model(models: Mapping[str, GatewayModel], name: str | None) -> GatewayModel:
    """Return the model called `name`; without a name, the only one.

    Raises:
        ApiError: there is none of that name, or a name is needed.
    """
    if name is None and len(models) == 1:
        return next(iter(models.values()))
    if name is None:
        raise invalid("model", f"is missing; models here: {', '.join(models)}")
    if name not in models:
        message = f"the model {name!r} does not exist; models here: {', '.join(models)}"
        raise ApiError(404, message, param="model", code="model_not_found")
    return models[name]


def of_chat(request: ChatRequest, model: GatewayModel, options: GatewayOptions, request_id: str) -> Job:
    """Understand a chat. Takes time that grows with the prompt: not for the event loop.

    Raises:
        ApiError: the model cannot chat, or a limit is passed.
    """
    ids = _chat_ids(model, [message.for_template() for message in request.messages])
    wanted = request.max_completion_tokens or request.max_tokens or options.default_max_tokens
    return _job(request, model, options, request_id, ids=ids, wanted=wanted, param="messages")


def of_completion(request: CompletionRequest, model: GatewayModel, options: GatewayOptions, request_id: str) -> Job:
    """Understand a completion; as `of_chat`."""
    wanted = request.max_tokens or options.default_max_tokens
    ids = _prompt_ids(model, request.prompt)
    return _job(request, model, options, request_id, ids=ids, wanted=wanted, param="prompt")


def of_predict(request: PredictRequest, model: GatewayModel, options: GatewayOptions, request_id: str) -> Job:
    """Understand ScaleLLM's own request: the text is a question where the model can chat; the answer is greedy."""
    if model.template is None:
        ids: Sequence[int] = model.tokenizer.encode(request.text)
    else:
        ids = _chat_ids(model, [{"role": "user", "content": request.text}])
    generation = tensors.Generation(
        model=model.name,
        request_id=request_id,
        input_ids=ids,
        max_tokens=_max_tokens(model, options, ids, request.max_tokens or options.default_max_tokens, "text"),
        temperature=0.0,
        top_p=1.0,
        is_stream=False,
    )
    return Job(model=model, generation=generation, stream=False, include_usage=False)


def _job(
    request: ChatRequest | CompletionRequest,
    model: GatewayModel,
    options: GatewayOptions,
    request_id: str,
    *,
    ids: Sequence[int],
    wanted: int,
    param: str,
) -> Job:
    if request.n > model.settings.max_batch_size:
        raise invalid("n", f"at most {model.settings.max_batch_size} for this model, found {request.n}")
    max_tokens = _max_tokens(model, options, ids, wanted, param)
    if request.min_tokens is not None and request.min_tokens > max_tokens:
        raise invalid("min_tokens", f"is more than the {max_tokens} tokens that the answer may have")
    generation = tensors.Generation(
        model=model.name,
        request_id=request_id,
        input_ids=ids,
        max_tokens=max_tokens,
        # Probability mass 0 leaves the most probable token only, which is what temperature 0 means.
        temperature=0.0 if request.top_p == 0 else request.temperature,
        top_p=request.top_p,
        is_stream=request.stream,
        num_sequences=request.n,
        # OpenAI's seed has a sign, the model's has none: the same 64 bits.
        seed=None if request.seed is None else request.seed % 2**64,
        stop=tuple(request.stop),
        top_k=request.top_k,
        min_tokens=request.min_tokens,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty or None,
        frequency_penalty=request.frequency_penalty or None,
        has_log_probs=request.logprobs is not None and request.logprobs is not False,
        ignore_eos=request.ignore_eos,
    )
    _check_inputs(generation, model)
    options_of_stream = request.stream_options
    include_usage = options_of_stream is not None and options_of_stream.include_usage
    return Job(model=model, generation=generation, stream=request.stream, include_usage=include_usage)


def _chat_ids(model: GatewayModel, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
    if model.template is None:
        raise invalid("model", f"{model.name} has no chat template; use /v1/completions")
    try:
        prompt = model.template.render(messages)
    except RecipeError as error:
        raise invalid("messages", error.problems[0].message) from error
    return model.tokenizer.encode(prompt)


def _prompt_ids(model: GatewayModel, prompt: str | list[int]) -> Sequence[int]:
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt)
    if max(prompt, default=0) >= model.settings.vocab_size:
        raise invalid("prompt", f"token ids must be below {model.settings.vocab_size}, found {max(prompt)}")
    return prompt


def _max_tokens(model: GatewayModel, options: GatewayOptions, ids: Sequence[int], wanted: int, param: str) -> int:
    """Return how many tokens to ask for: `wanted`, or what the engine can hold if that is less.

    Raises:
        ApiError: the prompt is empty, or leaves no room.
    """
    if not ids:
        raise invalid(param, "the prompt is empty; at least 1 token is needed")
    limits = [model.settings.max_input_len]
    limits += [] if options.max_prompt_tokens is None else [options.max_prompt_tokens]
    limits += [] if model.settings.chunked_context else [model.settings.max_num_tokens]
    room = model.max_new_tokens(len(ids))
    if len(ids) > min(limits) or room < 1:
        longest = min(*limits, model.settings.max_seq_len - 1, model.settings.kv_cache_tokens)
        message = f"{param}: the prompt has {len(ids)} tokens; this model takes at most {longest}"
        raise ApiError(400, message, param=param, code="context_length_exceeded")
    return min(wanted, room)


def _check_inputs(generation: Generation, model: GatewayModel) -> None:
    """Refuse what this model's contract does not have."""
    for name in tensors.inputs(generation):
        if name not in model.inputs:
            raise invalid(OPENAI_FIELDS.get(name, name), f"is not supported by {model.name}")
