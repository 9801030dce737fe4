"""A report as Markdown: the same sentences and tables as the page, without its charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.bench.report import content as contents
from scalellm_trt.bench.tables import escaped

if TYPE_CHECKING:
    from scalellm_trt.bench.report.content import Content


def markdown(content: Content) -> str:
    """Return the whole text."""
    run = content.run
    lines = [f"# {escaped(content.title)}", "", f"{escaped(run.started)}, `{run.command.replace('`', chr(39))}`", ""]
    if content.doubts:
        lines += ["## Read this first", ""]
        lines += [f"- {'Note: ' if each.is_note else ''}{escaped(each.text)}" for each in content.doubts]
        lines.append("")
    sections = (
        contents.latencies(content),
        contents.comparisons(content),
        contents.economics(content),
        contents.surroundings(content),
        contents.formulas(),
    )
    for section in sections:
        if section.is_empty:
            continue
        lines += [f"## {escaped(section.title)}", ""]
        for sentence in section.sentences:
            lines += [escaped(sentence), ""]
        lines += [table.markdown() for table in section.tables]
    return "\n".join(lines).rstrip() + "\n"
