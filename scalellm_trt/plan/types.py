"""The plan as values: formats, limits and scheduling with nothing left open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import LocalModel
    from scalellm_trt.memory import MemoryBudget
    from scalellm_trt.model_spec import ModelSpec
    from scalellm_trt.recipe import BackendName, Calibration, ModelDtype, SchedulerPolicy, WeightFormat

ResolvedKvCacheDtype = Literal["float16", "bfloat16", "int8", "fp8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A value that the plan chose, and why. `field` is a dotted recipe key.

    Attributes:
        is_warning: something that happens without being asked, or that nobody has confirmed.
    """

    field: str
    value: str
    reason: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationPlan:
    """Formats with nothing left open. `group_size` is None for formats that scale per output channel."""

    weights: WeightFormat
    group_size: int | None
    kv_cache_dtype: ResolvedKvCacheDtype
    calibration: Calibration | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsPlan:
    """Engine limits with nothing left open; all are counts of sequences or tokens."""

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    """Scheduling with nothing left open. `kv_cache_tokens` is the pool of one service, whole blocks."""

    batch_scheduler_policy: SchedulerPolicy
    kv_cache_reuse: bool
    chunked_context: bool
    kv_cache_tokens: int
    kv_cache_bytes: int
    tokens_per_block: int
    max_queue_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a build does, decided before it starts."""

    name: str
    model: LocalModel
    spec: ModelSpec
    dtype: ModelDtype
    hardware: str
    backend: BackendName
    toolchain: str
    quantization: QuantizationPlan
    limits: LimitsPlan
    serving: ServingPlan
    tp_size: int
    pp_size: int
    services: int
    budgets: tuple[MemoryBudget, ...]
    decisions: tuple[Decision, ...]

    @property
    def world_size(self) -> int:
        """Ranks that one copy of the model is spread over; one GPU each."""
        return self.tp_size * self.pp_size

    @property
    def binding_budgets(self) -> tuple[MemoryBudget, ...]:
        """The budgets of memory that must fit: disk is asked for when a stage runs, advisory ones only warn."""
        return tuple(budget for budget in self.budgets if budget.place != "disk" and not budget.is_advisory)

    @property
    def fits(self) -> bool:
        """Whether every stage fits into the memory that it must fit into."""
        return all(budget.fits for budget in self.binding_budgets)
