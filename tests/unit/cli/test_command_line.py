"""The command line as a whole: exit codes, one JSON document on errors, and a light start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scalellm_trt import errors
from scalellm_trt.cli import command_line

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "modelopt", "openvino", "openvino_genai", "tritonclient", "grpc", "huggingface_hub")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in ("recipes", "show", "validate", "plan", "build", "serve", "infer", "doctor", "cache", "repo"):
        assert name in shown


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["infer", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom scalellm_trt.cli import command_line as m\n"
        f"assert m.run({arguments!r}) == 0\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules], 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "HEAVY [] False"


def test_a_wrong_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["build", "--no-such-option"]) == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_a_missing_recipe_exits_2_and_says_so_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.run(["build", "nowhere.yaml", "--json"]) == 2
    printed = capsys.readouterr()
    assert "nowhere.yaml" in printed.err
    error = json.loads(printed.out)["error"]
    assert error["kind"] == "RecipeError"
    assert error["problems"][0]["file"] == "nowhere.yaml"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (errors.RecipeError([errors.Problem(message="m")]), 2),
        (errors.UnsupportedError([errors.Problem(message="m")]), 3),
        (errors.ToolchainError("m"), 4),
        (errors.StageError("m"), 5),
        (errors.ArtefactError("m"), 6),
        (errors.ServerNotReadyError("m"), 7),
        (errors.ThresholdMissedError("m"), 8),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("m"), 1),
    ],
)
def test_what_a_command_raises_becomes_its_exit_code(
    raised: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise raised

    assert command_line.run([], app) == code
    shown = capsys.readouterr().err
    assert ("Please report" in shown) == (code == 1)
    assert "Traceback" not in shown or code == 1
