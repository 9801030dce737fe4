"""Lines over one axis as an SVG file: for the plots of documents, without a library to draw."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Scale = Callable[[float], float]

WIDTH, PANEL_HEIGHT = 760, 190
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 34, 30
COLOURS = ("#1f6feb", "#d1570c", "#2da44e", "#8250df")
STYLE = "font-family: system-ui, sans-serif; font-size: 12px"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line; a point whose y is None interrupts it."""

    name: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot, from 0 upwards. The first line is the widest: what lies on it is seen, and so is the line itself."""

    title: str
    lines: Sequence[Line]


def svg(title: str, panels: Sequence[Panel], x_label: str) -> str:
    """Return the file: panels one below the other, over the same x."""
    xs = [0.0, *(x for panel in panels for line in panel.lines for x, _ in line.points)]
    height = TOP + len(panels) * PANEL_HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" style="{STYLE}" role="img">',
        f'<title>{html.escape(title)}</title><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-weight="bold">{html.escape(title)}</text>',
    ]
    for index, panel in enumerate(panels):
        parts += _panel(panel, TOP + index * PANEL_HEIGHT, (min(xs), max(xs)))
    parts.append(f'<text x="{WIDTH / 2}" y="{height - 4}" text-anchor="middle">{html.escape(x_label)}</text></svg>')
    return "\n".join(parts) + "\n"


def _panel(panel: Panel, top: float, x_range: tuple[float, float]) -> list[str]:
    ticks = _ticks(max(y for line in panel.lines for _, y in line.points if y is not None))
    plot_top, plot_bottom = top + 28, top + PANEL_HEIGHT - 22

    def at_x(x: float) -> float:
        return LEFT + (x - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        return plot_bottom - y / ticks[-1] * (plot_bottom - plot_top)

    parts = [f'<text x="{LEFT}" y="{top + 16}">{html.escape(panel.title)}</text>']
    for tick in ticks:
        parts.append(f'<path d="M{LEFT} {at_y(tick):.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at_y(tick) + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for tick in [tick for tick in _ticks(x_range[1]) if x_range[0] <= tick <= x_range[1]]:
        parts.append(f'<text x="{at_x(tick):.1f}" y="{plot_bottom + 15}" text-anchor="middle">{tick:g}</text>')
    legend = float(WIDTH - RIGHT)
    for line, colour in reversed(list(zip(panel.lines, COLOURS, strict=False))):
        legend -= 7.0 * len(line.name) + 26
        parts.append(f'<path d="M{legend} {top + 12}h16" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{legend + 20}" y="{top + 16}">{html.escape(line.name)}</text>')
    for index, (line, colour) in enumerate(zip(panel.lines, COLOURS, strict=False)):
        width = '7" stroke-opacity="0.35' if index == 0 and len(panel.lines) > 1 else "2"
        path = _path(line, at_x, at_y)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
    return parts


def _path(line: Line, at_x: Scale, at_y: Scale) -> str:
    parts, is_down = [], False
    for x, y in line.points:
        if y is not None:
            parts.append(f"{'L' if is_down else 'M'}{at_x(x):.1f} {at_y(y):.1f}")
        is_down = y is not None
    return "".join(parts)


def _ticks(highest: float) -> list[float]:
    """Return 0 and multiples of 1, 2 or 5 times a power of ten, up to one that is not below `highest`."""
    step = 10.0 ** math.floor(math.log10(max(highest, 1e-9) / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor * 5 >= highest)
    return [step * index for index in range(math.ceil(highest / step) + 1)]
