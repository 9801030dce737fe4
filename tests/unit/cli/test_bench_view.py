from __future__ import annotations

import io

from scalellm_trt.bench.tables import Table
from scalellm_trt.cli import tables
from scalellm_trt.cli.bench_view import show_table


def test_a_table_is_printed_with_its_heading_and_note_and_names_are_no_markup() -> None:
    out = io.StringIO()
    found = Table(title="TTFT", columns=("target", "p50"), rows=(("[red]a[/]", "1.0"), ("b", "20.0")), note="[a note]")
    show_table(found, tables.console(out))
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "TTFT",
        "target      p50",
        "[red]a[/]   1.0",
        "b          20.0",
        "[a note]",
        "",
    ]
