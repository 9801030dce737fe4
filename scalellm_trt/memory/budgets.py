"""Choose the arithmetic of an engine by the kind that the toolchain builds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.memory import openvino, tensorrt_llm

if TYPE_CHECKING:
    from scalellm_trt.memory.types import MemoryBudget, MemoryInputs


def budgets(inputs: MemoryInputs) -> tuple[MemoryBudget, ...]:
    """Return what each stage needs in each place, in the order of the stages."""
    return _BUDGETS[inputs.toolchain.engine_kind](inputs)


_BUDGETS = {
    "openvino_ir": openvino.budgets,
    "trt_engine": tensorrt_llm.budgets,
    "llm_api": tensorrt_llm.budgets,
}
