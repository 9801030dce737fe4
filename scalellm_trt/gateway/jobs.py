"""A checked request in, what the engine is to generate out: model, prompt as tokens, limits, sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scalellm_trt.errors import ArtefactError, RecipeError
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
        siblings: what the request's other prompts ask for.
        echoes: texts that go in front of the answers, one for each prompt; none where the prompt is not repeated.
    """

    model: GatewayModel
    generation: Generation
    stream: bool
    include_usage: bool
    siblings: tuple[Generation, ...] = ()
    echoes: tuple[str, ...] = ()

    def most_tokens(self) -> int:
        """Return how many tokens it can use: those of its prompts, and the most of every answer."""
        return sum(
            len(each.input_ids) + each.max_tokens * each.num_sequences for each in (self.generation, *self.siblings)
        )

    def of_each_prompt(self) -> list[Job]:
        """Return a job for each prompt."""
        return [replace(self, generation=each, siblings=()) for each in (self.generation, *self.siblings)]


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
    prompts = [_prompt_ids(model, prompt) for prompt in request.prompt]
    first, *others = [
        _job(request, model, options, _sibling_id(request_id, number), ids=ids, wanted=wanted, param="prompt")
        for number, ids in enumerate(prompts)
    ]
    echoes = []
    if request.echo:
        token_bytes = model.tokenizer.token_bytes
        echoes = [prompt if isinstance(prompt, str) else token_bytes.decode(prompt) for prompt in request.prompt]
    return replace(first, siblings=tuple(other.generation for other in others), echoes=tuple(echoes))


def _sibling_id(request_id: str, number: int) -> str:
    return f"{request_id}-{number}" if number else request_id


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
        bad_words=tuple(request.bad_words),
        token_bias=_token_bias(request, model),
        guide=None if request.response_format is None else request.response_format.guide(),
        has_log_probs=request.logprobs is not None and request.logprobs is not False,
        ignore_eos=request.ignore_eos,
    )
    _check_inputs(generation, model)
    options_of_stream = request.stream_options
    include_usage = options_of_stream is not None and options_of_stream.include_usage
    return Job(model=model, generation=generation, stream=request.stream, include_usage=include_usage)


def _token_bias(request: ChatRequest | CompletionRequest, model: GatewayModel) -> tuple[tuple[int, float], ...]:
    pairs = tuple((int(key), bias) for key, bias in request.logit_bias.items())
    highest = max((token_id for token_id, _ in pairs), default=0)
    if highest >= model.settings.vocab_size:
        raise invalid("logit_bias", f"token ids must be below {model.settings.vocab_size}, found {highest}")
    return pairs


def _chat_ids(model: GatewayModel, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
    if model.template is None:
        raise invalid("model", f"{model.name} has no chat template; use /v1/completions")
    try:
        prompt = model.template.render(messages)
    except RecipeError as error:
        raise invalid("messages", error.problems[0].message) from error
    except ArtefactError as error:
        raise invalid("messages", f"the model's chat template fails on them: {error.message}") from error
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
