"""README and docs/ say what is there: commands and options, files, links, and the text contract."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.cli.reference import commands, exit_codes
from scalellm_trt.runtime.engine_openvino import UNSUPPORTED_INPUTS
from scalellm_trt.runtime.settings import ServiceSettings
from scalellm_trt.runtime.signature import INPUTS, OUTPUTS, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guide.md"
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += [ROOT / "docs" / f"{name}.md" for name in ("guide", "gpu", "decisions", "benchmarks")]
COMMANDS = dict(commands())
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL_WORDS = {"source", "pip", "curl", "pytest", "python", "python3", "docker", "ssh", "kill"}


def _lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command in the page's blocks; `NAME=value` in front of a command is left out."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield words


def _ours(words: list[str]) -> tuple[str, list[str]]:
    """Split what follows `scalellm-trt` into the command's name and its arguments."""
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, words[length:]
    pytest.fail(f"there is no command `scalellm-trt {' '.join(words)}`")


NAMED = [pytest.param(page, words, id=f"{page.name}: {' '.join(words)}") for page in PAGES for words in _lines(page)]


@pytest.mark.parametrize(("page", "words"), NAMED)
def test_a_command_in_the_documentation_exists_with_its_options(page: Path, words: list[str]) -> None:
    program, *arguments = words
    if program == "scalellm-trt":
        name, rest = _ours(arguments)
        # Raises for an unknown option, a missing argument, or a value that the option does not take.
        COMMANDS[name].make_context(name, rest)
    elif program.startswith("scripts/"):
        assert (ROOT / program).is_file()
    else:
        assert program in SHELL_WORDS


@pytest.mark.parametrize(("page", "words"), NAMED)
def test_a_file_named_in_a_command_is_there(page: Path, words: list[str]) -> None:
    for word in words:
        if re.fullmatch(r"(recipes|scripts|docs)/\S+", word) and "no-such" not in word:
            assert list(ROOT.glob(word)), word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_in_a_sentence_exists(page: Path) -> None:
    for command in re.findall(r"`scalellm-trt ([^`]+)`", page.read_text(encoding="utf-8")):
        _ours(re.split(r"\s+(?=-|[A-Z.]|recipes/|smoll)", command)[0].split())


def test_every_command_is_shown_in_the_guide() -> None:
    shown = {_ours(words[1:])[0] for words in _lines(GUIDE) if words[0] == "scalellm-trt"}
    assert shown == COMMANDS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        if "://" in path:
            continue
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if heading:
            assert heading in _anchors(linked), target


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table below a heading of the guide: first cell → the others."""
    section = GUIDE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n### ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in rows}


def _type_and_shape(tensor: Tensor, letters: str) -> str:
    """Say what a tensor is as a client writes it: `INT32 [1,n]`."""
    kind = {"TYPE_STRING": "BYTES"}.get(tensor.data_type, tensor.data_type.removeprefix("TYPE_"))
    lengths = iter(letters)
    return f"`{kind} [{','.join(['1', *(next(lengths) if size == -1 else str(size) for size in tensor.dims)])}]`"


def test_the_guide_names_every_input_with_its_type() -> None:
    expected = {tensor.name: _type_and_shape(tensor, "nn") for tensor in INPUTS}
    rows = _rows("Inputs") | _rows("Refused inputs")
    assert {name: cells[0] for name, cells in rows.items()} == expected


def test_the_guide_tells_which_inputs_are_refused_and_why() -> None:
    assert {name: cells[1] for name, cells in _rows("Refused inputs").items()} == dict(UNSUPPORTED_INPUTS)


def test_the_guide_marks_the_inputs_that_are_required() -> None:
    required = {name for name, cells in _rows("Inputs").items() if cells[1] == "required"}
    assert required == {tensor.name for tensor in INPUTS if not tensor.optional}


def test_the_guide_names_every_output_with_its_type() -> None:
    expected = {tensor.name: _type_and_shape(tensor, "sn") for tensor in OUTPUTS}
    assert {name: cells[0] for name, cells in _rows("Outputs").items()} == expected


def test_the_guide_tells_the_pace_of_a_stream() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(ServiceSettings)}
    text = GUIDE.read_text(encoding="utf-8")
    assert f"at least\n{defaults['response_spacing_ms']:g} ms for each live stream" in text
    assert f"asks every {defaults['cancel_poll_ms']:g} ms" in text


def test_the_guide_names_the_exit_codes_that_it_explains() -> None:
    named = {int(code) for code in re.findall(r"exit code\s+(\d+)", GUIDE.read_text(encoding="utf-8"))}
    assert named <= exit_codes().keys()


def test_the_readme_counts_the_lines_of_its_client() -> None:
    counted: Any = re.search(r"one in (\d+) lines", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert int(counted[1]) == len((ROOT / "docs/examples/stream.py").read_text(encoding="utf-8").splitlines())
