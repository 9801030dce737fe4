"""The few SVG elements that charts are made of, as text; every word is escaped, colours are classes of a stylesheet."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NUM_COLOURS = 8
Anchor = Literal["start", "middle", "end"]


def colour(index: int) -> str:
    """Return the class of a series; after the last colour the first comes again."""
    return f"c{index % NUM_COLOURS}"


def picture(width: float, height: float, label: str, parts: Iterable[str], style: str = "") -> str:
    """Return a whole picture that scales with its place; `label` is what a screen reader says.

    Args:
        width: of its inner coordinates.
        height: the same.
        label: one sentence.
        parts: elements.
        style: a stylesheet of its own, for a file that stands alone.
    """
    inside = f"<style>{style}</style>" if style else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {_n(width)} {_n(height)}" role="img" '
        f'aria-label="{escape(label)}">{inside}{"".join(parts)}</svg>'
    )


def line(x1: float, y1: float, x2: float, y2: float, of: str) -> str:
    """Return a straight line of class `of`."""
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{of}"/>'


def path(points: Sequence[tuple[float, float]], of: str) -> str:
    """Return a line through points; nothing for none."""
    if not points:
        return ""
    steps = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    return f'<path d="M{steps}" class="{of}"/>'


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], of: str) -> str:
    """Return the area between two lines of the same direction."""
    outline = [*upper, *reversed(lower)]
    return "" if len(outline) < 3 else path(outline, of).replace('" class', 'Z" class')


def strokes(places: Iterable[tuple[float, float, float]], of: str) -> str:
    """Return upright strokes, all of them one element: (x, top, bottom)."""
    marks = "".join(f"M{_n(x)} {_n(top)}V{_n(bottom)}" for x, top, bottom in places)
    return f'<path d="{marks}" class="{of}"/>' if marks else ""


def dot(x: float, y: float, of: str, told: str) -> str:
    """Return a point that says `told` when it is pointed at."""
    return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="3" class="{of}"><title>{escape(told)}</title></circle>'


def bar(x: float, y: float, width: float, height: float, of: str, told: str) -> str:
    """Return a rectangle that says `told` when it is pointed at."""
    size = f'width="{_n(max(width, 0.5))}" height="{_n(height)}"'
    return f'<rect x="{_n(x)}" y="{_n(y)}" {size} rx="2" class="{of}"><title>{escape(told)}</title></rect>'


def text(x: float, y: float, words: str, of: str = "label", anchor: Anchor = "start") -> str:
    """Return words."""
    return f'<text x="{_n(x)}" y="{_n(y)}" class="{of}" text-anchor="{anchor}">{escape(words)}</text>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
