"""`data/measurements.yaml` in, published points out; those that no card can reach are told apart."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Literal, cast

from scalellm_trt import facts
from scalellm_trt.predict.cards import rates_of
from scalellm_trt.predict.roofline import Format, Gemm, Pass, Rates, Shape, Width, decode_step, prefill

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

Kind = Literal["ttft", "tpot", "throughput", "e2e"]
Unit = Literal["ms", "tokens_per_s", "prompt_tokens_per_s"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One published speed.

    Attributes:
        prompt: tokens of each prompt; for `tpot` the context at the first step.
        value: as printed, in `unit`.
        is_held_out: neither fitted nor scored; `note` says why.
    """

    gpu: str
    model: str
    weights: str
    tp_size: int
    prompt: int
    output: int
    batch: int
    kind: Kind
    value: float
    unit: Unit
    engine: str
    source: str
    is_held_out: bool
    note: str

    @property
    def seconds(self) -> float:
        """The measured duration: of the prefill, of a step, or of the whole batch."""
        if self.unit == "ms":
            return self.value / 1000
        if self.unit == "prompt_tokens_per_s":
            return self.batch * self.prompt / self.value
        tokens = self.batch if self.kind == "tpot" else self.batch * self.output
        return tokens / self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """A point before the constants: how often which pass runs, and which constants are asked for."""

    point: Point
    prefill: Pass | None
    step: Pass | None
    num_steps: int
    gemm: Gemm
    width: Width

    def seconds(self, mfu: float, mbu: float) -> float:
        """Return the predicted duration."""
        first = 0.0 if self.prefill is None else self.prefill.seconds(mfu, mbu)
        return first + (0.0 if self.step is None else self.num_steps * self.step.seconds(mfu, mbu))


@functools.cache
def passes() -> tuple[Passes, ...]:
    """Return every point with its passes, held-out ones included."""
    raw = _raw()
    return tuple(_passes(point, raw) for point in points())


@functools.cache
def points() -> tuple[Point, ...]:
    """Return the published points as they stand in the file."""
    rows = cast("list[dict[str, str | float | bool]]", _raw()["points"])
    return tuple(_point(row) for row in rows)


@functools.cache
def sources() -> Mapping[str, tuple[str, datetime.date]]:
    """Return where the points come from: name → address and date."""
    rows = cast("dict[str, dict[str, object]]", _raw()["sources"])
    return {name: (str(row["url"]), cast("datetime.date", row["date"])) for name, row in rows.items()}


def beats_the_roof(point: Passes) -> bool:
    """Tell whether a point is faster than peak and bandwidth allow without any loss: then it is not what it says."""
    bare = [
        Pass(compute_s=p.compute_s, memory_s=p.memory_s, fixed_s=0.0) if p else None
        for p in (point.prefill, point.step)
    ]
    roof = Passes(
        point=point.point, prefill=bare[0], step=bare[1], num_steps=point.num_steps, gemm=point.gemm, width=point.width
    )
    return point.point.seconds < roof.seconds(1.0, 1.0)


def usable_passes() -> tuple[Passes, ...]:
    """Return the points to fit and to score: neither held out nor impossible."""
    return tuple(each for each in passes() if not each.point.is_held_out and not beats_the_roof(each))


def _passes(point: Point, raw: Mapping[str, object]) -> Passes:
    shape, form = _shape(point.model, raw), _format(point.weights, raw)
    rates = _rates(point.gpu, form.gemm, raw)
    size = {"batch": point.batch, "tp_size": point.tp_size}
    context = point.prompt + point.output / 2
    has_prefill, has_step = point.kind != "tpot", point.kind != "ttft"
    return Passes(
        point=point,
        prefill=prefill(shape, form, rates, prompt=point.prompt, **size) if has_prefill else None,
        step=decode_step(shape, form, rates, context=context, **size) if has_step else None,
        num_steps=1 if point.kind == "tpot" else point.output - 1,
        gemm=form.gemm,
        width=form.width,
    )


def _rates(gpu: str, gemm: Gemm, raw: Mapping[str, object]) -> Rates:
    """Return a card's peak for a kind of matrix multiplication, its bandwidth and its link."""
    if gpu in facts.hardware():
        return rates_of(facts.hardware()[gpu], "fp8" if gemm == "fp8" else "fp16")
    row = cast("dict[str, dict[str, float]]", raw["cards"])[gpu]
    return Rates(
        peak_flops=row["fp8_tflops" if gemm == "fp8" else "fp16_tflops"] * 1e12,
        bandwidth_bytes_per_s=row["bandwidth_gb_per_s"] * 1e9,
        link_bytes_per_s=row["link_gb_per_s"] * 1e9,
    )


def _shape(name: str, raw: Mapping[str, object]) -> Shape:
    row = cast("dict[str, dict[str, int]]", raw["models"])[name]
    hidden, q_size, kv_size = row["hidden"], row["q"], row["kv"]
    attention = hidden * (q_size + 2 * kv_size) + q_size * hidden
    mlp = row["mlp_matrices"] * hidden * row["intermediate"]
    return Shape(
        num_layers=row["layers"],
        hidden_size=hidden,
        q_size=q_size,
        kv_size=kv_size,
        num_dense_parameters=row["layers"] * (attention + mlp),
        num_head_parameters=row["vocab"] * hidden,
    )


def _format(name: str, raw: Mapping[str, object]) -> Format:
    row = cast("dict[str, dict[str, str | float]]", raw["formats"])[name]
    return Format(
        width=cast("Width", row["width"]),
        gemm=cast("Gemm", row["gemm"]),
        weight_bytes=float(row["weight_bytes"]),
        head_bytes=float(row["head_bytes"]),
        kv_bytes=float(row["kv_bytes"]),
    )


def _point(row: Mapping[str, str | float | bool]) -> Point:
    return Point(
        gpu=str(row["gpu"]),
        model=str(row["model"]),
        weights=str(row["weights"]),
        tp_size=int(row["tp"]),
        prompt=int(row["prompt"]),
        output=int(row["output"]),
        batch=int(row["batch"]),
        kind=cast("Kind", row["kind"]),
        value=float(row["value"]),
        unit=cast("Unit", row["unit"]),
        engine=str(row["engine"]),
        source=str(row["source"]),
        is_held_out=bool(row["held_out"]),
        note=str(row.get("note", "")),
    )


@functools.cache
def _raw() -> Mapping[str, object]:
    import yaml

    text = (resources.files("scalellm_trt") / "data" / "measurements.yaml").read_text(encoding="utf-8")
    return cast("Mapping[str, object]", yaml.safe_load(text))
