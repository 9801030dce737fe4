"""Tables of a benchmark on the screen. Prints, decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from scalellm_trt.bench.tables import Table


def show_table(found: Table, on: Console) -> None:
    """Print a table of `bench.tables` with its heading and note."""
    from rich.markup import escape

    from scalellm_trt.cli import tables

    drawn = tables.table(on, *found.columns, numbers=found.columns[found.first_number :])
    for row in found.rows:
        drawn.add_row(*(escape(cell) for cell in row))
    on.print(f"[bold]{escape(found.title)}[/]", soft_wrap=True)
    on.print(drawn)
    if found.note:
        on.print(f"[dim]{escape(found.note)}[/]", soft_wrap=True)
    on.print()
