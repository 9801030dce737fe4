"""`service.json` beside this file in, `ServiceSettings` out: what a served model is and what it may take."""

from __future__ import annotations

import dataclasses
import json
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EngineName = Literal["openvino", "tensorrt_llm", "llmapi"]
EngineContract = Literal["0.13", "1.x"]
KvCachePrecision = Literal["f16", "u8", "f32"]
SchedulerPolicy = Literal["guaranteed_no_evict", "max_utilization"]

FILE_NAME = "service.json"


class SettingsError(Exception):
    """`service.json` cannot be used; the message names the file, the key, and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """One service. Written by the build, read once when tritonserver loads the model.

    Attributes:
        engine: which engine makes the tokens: one in this process, or (`tensorrt_llm`) the model `engine_model`.
        engine_directory: `tokenizer.json` and, for an engine in this process, its files; relative to the version
            directory or absolute.
        engine_model: the model of the same server that has the engine; None for an engine in this process.
        engine_contract: names of that model's tensors, by TensorRT-LLM's generation.
        vocab_size: ids that a prompt may hold are 0 <= id < vocab_size.
        eos_token_ids: ids that end an answer.
        bos_token_id: not put in front of a prompt that already begins with it; None if the model has none.
        add_special_tokens: let the tokenizer add its special tokens (such as BOS) to `text_input`.
        skip_special_tokens: leave special tokens out of `text_output`.
        exclude_input_in_output: the default of the input of that name.
        max_batch_size: sequences that generate at the same time.
        max_input_len: longest prompt, in tokens.
        max_seq_len: longest prompt plus answer, in tokens.
        max_num_tokens: tokens that one step may process, over all sequences: the prefill chunk.
        max_queue_size: requests that may wait for a place; more are refused.
        kv_cache_precision: element type of the paged KV cache.
        kv_cache_tokens: size of the KV cache pool, a multiple of `tokens_per_block`.
        tokens_per_block: size of one page; 32 is what OpenVINO uses on CPU.
        kv_cache_reuse: keep the pages of finished requests for prompts with the same prefix.
        chunked_context: split a prompt longer than `max_num_tokens` over several steps.
        batch_scheduler_policy: `guaranteed_no_evict` starts a request only when prompt + max_tokens fit into the
            pool; `max_utilization` starts it when the prompt fits, and may recompute it later.
        num_threads: threads of the engine; None leaves it to the engine.
        response_spacing_ms: a stream's next response follows its last one by at least this times the number of
            live streams; tokens made meanwhile travel together. The first and the last token never wait. 0 sends
            every token on its own.
        cancel_poll_ms: a live request is asked at most this often whether its client has gone, and once a step.
    """

    engine: EngineName
    engine_directory: str
    engine_model: str | None = None
    engine_contract: EngineContract = "1.x"
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None = None
    add_special_tokens: bool = True
    skip_special_tokens: bool = True
    exclude_input_in_output: bool = False
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_queue_size: int = 256
    kv_cache_precision: KvCachePrecision = "f16"
    kv_cache_tokens: int
    tokens_per_block: int = 32
    kv_cache_reuse: bool = False
    chunked_context: bool = True
    batch_scheduler_policy: SchedulerPolicy = "guaranteed_no_evict"
    num_threads: int | None = None
    response_spacing_ms: float = 15.0
    cancel_poll_ms: float = 10.0

    def __post_init__(self) -> None:
        """Check what no type can say.

        Raises:
            SettingsError: a size is not positive, or the sizes contradict each other.
        """
        for name in _POSITIVE:
            if getattr(self, name) < 1:
                message = f"{name}: must be at least 1, found {getattr(self, name)}"
                raise SettingsError(message)
        if self.kv_cache_tokens % self.tokens_per_block:
            message = f"kv_cache_tokens: must be a multiple of {self.tokens_per_block}, found {self.kv_cache_tokens}"
            raise SettingsError(message)
        if (self.engine == "tensorrt_llm") != (self.engine_model is not None):
            message = f"engine_model: belongs to the engine tensorrt_llm and to no other, found {self.engine_model!r}"
            raise SettingsError(message)
        if not self.eos_token_ids:
            raise SettingsError("eos_token_ids: must name at least one id")
        if self.max_input_len >= self.max_seq_len:
            message = f"max_input_len: must be below max_seq_len ({self.max_seq_len}), found {self.max_input_len}"
            raise SettingsError(message)

    @property
    def num_kv_blocks(self) -> int:
        """Pages in the KV cache pool."""
        return self.kv_cache_tokens // self.tokens_per_block

    @property
    def reports_reuse(self) -> bool:
        """Whether the service's model says how much of a prompt its KV cache had; others refuse the question."""
        return self.engine == "openvino"

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` reads back to an equal value; the content of `service.json`."""
        return dataclasses.asdict(self)


_POSITIVE = (
    "vocab_size",
    "max_batch_size",
    "max_input_len",
    "max_num_tokens",
    "max_queue_size",
    "kv_cache_tokens",
    "tokens_per_block",
)


def read(path: Path) -> ServiceSettings:
    """Read a `service.json`.

    Raises:
        SettingsError: the file is missing, is no JSON object, or a key is unknown, missing or of the wrong type.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read as JSON: {error}"
        raise SettingsError(message) from error
    if not isinstance(raw, dict):
        message = f"{path}: must hold a JSON object"
        raise SettingsError(message)
    try:
        return from_json(raw)
    except SettingsError as error:
        message = f"{path}: {error}"
        raise SettingsError(message) from error


def from_json(raw: Mapping[str, Any]) -> ServiceSettings:
    """Turn a parsed `service.json` into settings.

    Raises:
        SettingsError: a key is unknown, missing or of the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(ServiceSettings)}
    unknown = sorted(raw.keys() - fields.keys())
    if unknown:
        message = f"{unknown[0]}: no such setting; known are {', '.join(fields)}"
        raise SettingsError(message)
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in raw]
    if missing:
        message = f"{missing[0]}: is missing"
        raise SettingsError(message)
    hints = get_type_hints(ServiceSettings)
    return ServiceSettings(**{name: _checked(name, value, hints[name]) for name, value in raw.items()})


def _checked(name: str, value: object, hint: object) -> Any:  # noqa: ANN401  the field's own type
    """Return `value` as the type that `hint` asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        message = f"{name}: must be one of {', '.join(map(str, arguments))}, found {value!r}"
        raise SettingsError(message)
    if origin in (types.UnionType, Union):
        return None if value is None else _checked(name, value, arguments[0])
    if origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_checked(name, item, arguments[0]) for item in value)
        message = f"{name}: must be a list, found {value!r}"
        raise SettingsError(message)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        message = f"{name}: must be {getattr(hint, '__name__', hint)}, found {value!r}"
        raise SettingsError(message)
    return value
