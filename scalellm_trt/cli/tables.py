"""Tables for people: rich on a terminal, plain columns in a pipe or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import TextIO

    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 200  # columns; a pipe has no edge, but a line should stay readable


def console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """Return where to print: as wide as the terminal, or fixed where there is none."""
    from rich.console import Console

    found = Console(file=file, stderr=stderr, highlight=False)
    if found.is_terminal:
        return found
    return Console(file=file, stderr=stderr, highlight=False, width=PIPE_WIDTH, no_color=True)


def table(on: Console, *columns: str, numbers: Collection[str] = ()) -> Table:
    """Return an empty table with these headings, `numbers` on the right; ruled on a terminal, spaced elsewhere."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD if on.is_terminal else None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold", justify="right" if column in numbers else "left")
    return made
