"""Options that commands over benchmarks share: SLOs, prices, hardware, rooflines; text in, values out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from scalellm_trt.errors import Problem, RecipeError, ScaleLLMError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.bench.ceiling import Ceiling
    from scalellm_trt.bench.metrics import Slo
    from scalellm_trt.bench.run import Run
    from scalellm_trt.economics import ApiPrice, Price

SloOption = Annotated[
    list[str] | None,
    typer.Option("--slo", help="What goodput counts: ttft:MS, tpot:MS or e2e:MS; may be given several times."),
]
PricesOption = Annotated[
    Path | None, typer.Option("--prices", help="Your own prices, rented or owned; docs/guide.md shows the file.")
]
HardwareOption = Annotated[
    list[str] | None,
    typer.Option("--hardware", help="The card behind a target: CARD, or TARGET=CARD; where the run does not say it."),
]
RecipeOption = Annotated[
    list[str] | None,
    typer.Option("--recipe", help="What a target serves: FILE, or TARGET=FILE; for the roofline of its card."),
]
BandwidthOption = Annotated[
    float | None,
    typer.Option(help="Memory bandwidth of this processor in GB/s, for the roofline of CPU recipes.", min=0.001),
]
TflopsOption = Annotated[
    float | None, typer.Option(help="Its peak in TFLOPS, likewise; without it only the bandwidth limits.", min=0.001)
]
ApiInputOption = Annotated[
    float | None, typer.Option(help="What an API takes for a million input tokens, in USD: break-even.", min=0)
]
ApiOutputOption = Annotated[float | None, typer.Option(help="The same for a million output tokens.", min=0)]

_SLO_NAMES: Final = {
    "ttft": "ttft_ms",
    "tpot": "tpot_ms",
    "itl": "tpot_ms",
    "e2e": "e2e_latency_ms",
    "e2el": "e2e_latency_ms",
}


def slo(texts: Sequence[str] | None) -> Slo:
    """Return the limits.

    Raises:
        RecipeError: one is none.
    """
    from scalellm_trt.bench.metrics import Slo

    limits: dict[str, float] = {}
    for text in [part for each in texts or () for part in re.split(r"[,\s]+", each) if part]:
        found = re.fullmatch(r"([a-z0-9]+)[:=]([0-9]+(?:\.[0-9]+)?)", text)
        if found is None or found[1] not in _SLO_NAMES:
            hint = f"Allowed: {', '.join(_SLO_NAMES)}, each with milliseconds: ttft:500."
            raise RecipeError([Problem(key="--slo", message=f"{text!r} is no limit", hint=hint)])
        limits[_SLO_NAMES[found[1]]] = float(found[2])
    return Slo(**limits)


def quotes(path: Path | None) -> Mapping[str, Price]:
    """Return the prices that count."""
    from scalellm_trt.economics import price_file, prices

    return prices() if path is None else price_file.load(path)


def api_price(of_input: float | None, of_output: float | None) -> ApiPrice | None:
    """Return an API's price where one of both is given; the other is 0 then."""
    from scalellm_trt.economics import ApiPrice

    if of_input is None and of_output is None:
        return None
    return ApiPrice(input_usd=of_input or 0.0, output_usd=of_output or 0.0)


def with_hardware(described: Run, texts: Sequence[str] | None) -> Run:
    """Return the run with the hardware that an option says.

    Raises:
        RecipeError: no such target, or no such hardware.
    """
    import dataclasses

    from scalellm_trt import facts

    named = _by_target(described, texts, "--hardware")
    for name in named.values():
        if name not in facts.hardware():
            near = facts.nearest(name, facts.hardware())
            hint = (f"Nearest: {near}. " if near else "") + f"Known: {', '.join(facts.hardware())}."
            raise RecipeError([Problem(key="--hardware", message=f"{name!r} is not known", hint=hint)])
    targets = [
        dataclasses.replace(target, hardware=named.get(place, target.hardware))
        for place, target in enumerate(described.targets)
    ]
    return dataclasses.replace(described, targets=tuple(targets))


def ceilings(
    described: Run, texts: Sequence[str] | None, bandwidth: float | None, tflops: float | None
) -> Mapping[int, Ceiling]:
    """Return the roofline of each target whose hardware is known and whose recipe is named, or told by the run.

    Raises:
        RecipeError, UnsupportedError: a recipe is wrong.
    """
    from scalellm_trt import pipeline
    from scalellm_trt.bench import ceiling

    workspace = pipeline.Workspace(builds_dir=Path("builds"), repository_dir=Path("triton_repo"))
    found = {}
    told = {place: target.facts.get("recipe", "") for place, target in enumerate(described.targets)}
    named = _by_target(described, texts, "--recipe")
    for place, file in {**{place: file for place, file in told.items() if Path(file).is_file()}, **named}.items():
        hardware = described.targets[place].hardware
        try:
            plan = pipeline.study(Path(file), workspace, hardware=None if hardware == "cpu" else hardware).plan
        except ScaleLLMError:
            if place in named:
                raise
            continue  # it was changed since, or needs what is not here
        known = ceiling.of_plan(
            plan,
            memory_bandwidth_gb_per_s=bandwidth if plan.hardware == "cpu" else None,
            tflops=tflops if plan.hardware == "cpu" else None,
        )
        if known is not None:
            found[place] = known
    return found


def _by_target(described: Run, texts: Sequence[str] | None, option: str) -> Mapping[int, str]:
    """Return the values by the target's index; a value without a name is for all of them."""
    names = {target.name: place for place, target in enumerate(described.targets)}
    found: dict[int, str] = {}
    for text in texts or ():
        name, equals, value = text.rpartition("=")
        if equals and name not in names:
            message = f"the run has no target {name!r}"
            raise RecipeError([Problem(key=option, message=message, hint=f"It has: {', '.join(names)}.")])
        found.update({names[name]: value} if equals else dict.fromkeys(names.values(), value))
    return found
