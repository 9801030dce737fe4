"""Lengths in tokens: a number, or a distribution to draw from, as written on the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    import random

Shape = Literal["fixed", "uniform", "normal", "lognormal"]
FORMS = (
    "256, uniform:min=64,max=1024, normal:mean=512,std=128,min=16,max=2048 or "
    "lognormal:median=300,sigma=0.8,min=16,max=2048"
)
_KEYS: dict[str, tuple[str, ...]] = {
    "uniform": ("min", "max"),
    "normal": ("mean", "std", "min", "max"),
    "lognormal": ("median", "sigma", "min", "max"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A distribution of whole numbers from `low` to `high`.

    Attributes:
        centre: the mean of a normal one, the median of a lognormal one.
        spread: standard deviation, in tokens; of the logarithm for a lognormal one.
    """

    shape: Shape
    low: int
    high: int
    centre: float = 0.0
    spread: float = 0.0

    @property
    def label(self) -> str:
        """Return it as it is written on the command line."""
        if self.shape == "fixed":
            return str(self.low)
        names = _KEYS[self.shape]
        values = (self.low, self.high) if self.shape == "uniform" else (self.centre, self.spread, self.low, self.high)
        return f"{self.shape}:" + ",".join(f"{name}={value:g}" for name, value in zip(names, values, strict=True))


def fixed(value: int) -> Lengths:
    """Return the same length each time."""
    return Lengths(shape="fixed", low=value, high=value)


def draw(lengths: Lengths, random_source: random.Random) -> int:
    """Draw one; what falls outside of the bounds is drawn again, so that no heap forms at them."""
    if lengths.shape == "fixed":
        return lengths.low
    if lengths.shape == "uniform":
        return random_source.randint(lengths.low, lengths.high)
    for _ in range(1000):
        value = random_source.gauss(0.0, 1.0) * lengths.spread
        drawn = lengths.centre * math.exp(value) if lengths.shape == "lognormal" else lengths.centre + value
        if lengths.low <= round(drawn) <= lengths.high:
            return round(drawn)
    return min(max(round(lengths.centre), lengths.low), lengths.high)


def parse(text: str, option: str) -> Lengths:
    """Read what stands behind `option`.

    Raises:
        RecipeError: it is none of the forms.
    """
    shape, _, settings = text.partition(":")
    if not settings and shape.isdecimal() and int(shape) > 0:
        return fixed(int(shape))
    if shape not in _KEYS:
        raise _wrong(option, f"{text!r} is no length")
    try:
        given = {key: float(value) for key, _, value in (part.partition("=") for part in settings.split(","))}
    except ValueError as error:
        raise _wrong(option, f"{text!r}: {error}") from error
    if set(given) != set(_KEYS[shape]):
        raise _wrong(option, f"{text!r}: {shape} takes {', '.join(_KEYS[shape])}, found {', '.join(given)}")
    low, high = int(given["min"]), int(given["max"])
    if not 1 <= low <= high:
        raise _wrong(option, f"{text!r}: min and max must be 1 or more, in this order")
    named = next(each for each in get_args(Shape) if each == shape)
    centre, spread = given.get("mean", given.get("median", 0.0)), given.get("std", given.get("sigma", 0.0))
    if shape != "uniform" and not (low <= centre <= high and spread >= 0):
        raise _wrong(option, f"{text!r}: the centre must lie between min and max, the spread be 0 or more")
    return Lengths(shape=named, low=low, high=high, centre=centre, spread=spread)


def _wrong(option: str, message: str) -> RecipeError:
    return RecipeError([Problem(key=option, message=message, hint=f"Write it as {FORMS}.")])
