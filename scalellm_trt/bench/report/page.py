"""A report as one HTML file: no script, nothing fetched, every word escaped, light and dark, phone and laptop."""

from __future__ import annotations

from html import escape
from importlib import resources
from typing import TYPE_CHECKING

from scalellm_trt.bench.report import content as contents
from scalellm_trt.bench.report import pictures, svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.honesty import Doubt
    from scalellm_trt.bench.report.content import Content, Section
    from scalellm_trt.bench.report.pictures import Chart
    from scalellm_trt.bench.tables import Table

# Nothing may be fetched and no script runs, whatever a name in the records tries.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

LONGEST_LINE = 34  # letters of a cell, which may be broken beyond


def html(content: Content) -> str:
    """Return the whole file."""
    money = [pictures.scores(content.standings)] if content.standings else []
    parts = [
        _header(content),
        _doubts(content.doubts),
        _section(contents.latencies(content), first_open=2),
        f"<section><h2>Charts</h2>{_charts(pictures.draw(content))}</section>",
        _section(contents.comparisons(content), first_open=2),
        _section(contents.economics(content), first_open=2, charts=money),
        _section(contents.surroundings(content), first_open=9),
        _section(contents.formulas(), first_open=9),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        f'<link rel="icon" href="data:,"><title>{escape(content.title)}</title>'
        f"<style>{style()}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def style() -> str:
    """Return the stylesheet of page and pictures."""
    return (resources.files("scalellm_trt") / "bench" / "report" / "style.css").read_text(encoding="utf-8")


def _header(content: Content) -> str:
    run = content.run
    about = f"<p>{escape(run.started)} · <code>{escape(run.command)}</code></p>"
    return f"<header><h1>{escape(content.title)}</h1>{about}</header>"


def _doubts(found: Sequence[Doubt]) -> str:
    if not found:
        return '<section class="doubts none"><h2>Nothing to doubt was found</h2></section>'
    items = "".join(f'<li class="{"note" if each.is_note else "doubt"}">{escape(each.text)}</li>' for each in found)
    title = "Read this first" if any(not each.is_note for each in found) else "Good to know"
    return f'<section class="doubts"><h2>{title}</h2><ul>{items}</ul></section>'


def _section(section: Section, *, first_open: int, charts: Sequence[Chart] = ()) -> str:
    """Return a section, nothing for one that has nothing to say; tables after the first ones are folded."""
    if section.is_empty:
        return ""
    sentences = "".join(f"<p>{escape(each)}</p>" for each in section.sentences)
    tables = "".join(_table(each, is_open=place < first_open) for place, each in enumerate(section.tables))
    return f"<section><h2>{escape(section.title)}</h2>{sentences}{tables}{_charts(charts)}</section>"


def _table(table: Table, *, is_open: bool) -> str:
    head = "".join(_cell("th", column, place, table) for place, column in enumerate(table.columns))
    rows = "".join(
        f"<tr>{''.join(_cell('td', cell, place, table) for place, cell in enumerate(row))}</tr>" for row in table.rows
    )
    note = f"<p class=note>{escape(table.note)}</p>" if table.note else ""
    opened = " open" if is_open else ""
    # Reachable by keyboard, so that it can be scrolled without a pointer.
    return (
        f"<details{opened}><summary>{escape(table.title)}</summary>"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        f"{note}</details>"
    )


def _cell(tag: str, words: str, place: int, table: Table) -> str:
    kinds = ["number"] * (place >= table.first_number) + ["long"] * (len(words) > LONGEST_LINE)
    scope = ' scope="col"' if tag == "th" else ""
    of = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<{tag}{scope}{of}>{escape(words)}</{tag}>"


def _charts(found: Sequence[Chart]) -> str:
    return f'<div class="charts">{"".join(_chart(each) for each in found)}</div>' if found else ""


def _chart(chart: Chart) -> str:
    legend = "".join(
        f'<span class="key"><i class="{svg.colour(c)}"></i>{escape(name)}</span>' for name, c in chart.legend
    )
    note = f"<p class=note>{escape(chart.note)}</p>" if chart.note else ""
    title = f"<figcaption>{escape(chart.title)}</figcaption>"
    return f'<figure>{title}{chart.svg}<div class="keys">{legend}</div>{note}</figure>'
