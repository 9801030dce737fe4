from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scalellm_trt.cli.command_line import run
from scalellm_trt.cli.reference import cli_reference, commands, exit_codes
from scalellm_trt.errors import ScaleLLMError, ThresholdMissedError

COMMANDS = dict(commands())


def test_every_command_has_a_section_with_its_options() -> None:
    sections = dict(part.split("\n", 1) for part in cli_reference().split("\n## ")[1:])
    assert {"build", "cache verify", "repo rollback"} <= COMMANDS.keys() <= sections.keys()
    for path, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                assert f"`{parameter.opts[0]}`" in sections[path]


def test_every_command_and_every_parameter_says_what_it_is() -> None:
    silent = [path for path, command in COMMANDS.items() if not command.help]
    rows = [line for line in cli_reference().splitlines() if line.startswith("| `")]
    assert not silent
    assert not [row for row in rows if not row.split("|")[-2].strip()]


def test_every_row_of_a_table_is_whole() -> None:
    rows = [line for line in cli_reference().splitlines() if line.startswith("| `")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {5}


def test_a_range_and_a_default_are_shown() -> None:
    rows = cli_reference().splitlines()
    assert any(row.startswith("| `--grpc-port` | whole number, 1 to 65535 | `8001` |") for row in rows)
    assert any(row.startswith("| `--wait` | number, at least 0 | `0.0` |") for row in rows)


@pytest.mark.parametrize("surroundings", [{"COLUMNS": "20", "TERM": "dumb"}, {"COLUMNS": "300", "FORCE_COLOR": "1"}])
def test_the_terminal_does_not_change_it(surroundings: dict[str, str]) -> None:
    program = "from scalellm_trt.cli.reference import cli_reference; print(cli_reference(), end='')"
    environment = {**os.environ, **surroundings}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout == cli_reference()


def test_every_branch_of_the_error_tree_has_its_code() -> None:
    assert list(exit_codes()) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 130]
    assert exit_codes()[ThresholdMissedError.exit_code].startswith("A quality gate")


def test_an_error_elsewhere_does_not_rename_a_code() -> None:
    class ElsewhereError(ScaleLLMError):
        """Not of the tree."""

        exit_code = 6

    assert exit_codes()[ElsewhereError.exit_code] == "An artefact is missing, stale or corrupt."


def test_the_help_lists_the_same_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for code in exit_codes():
        assert f" {code} " in shown
