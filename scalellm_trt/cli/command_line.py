"""Assemble the commands, and turn what they raise into a message on stderr and an exit code."""

from __future__ import annotations

import importlib
import json
import logging
import os
import platform
import sys
import traceback
from typing import Annotated

import typer

from scalellm_trt import __version__
from scalellm_trt.errors import ProblemsError, ScaleLLMError

COMMAND_MODULES = (
    *(
        "recipes",
        "plan",
        "build",
        "serve",
        "infer",
        "bench",
        "compare",
        "gateway",
        "up",
        "key",
        "usage",
        "doctor",
        "migrate",
        "cache",
        "repo",
        "report",
        "export",
        "score",
    ),
)
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="scalellm-trt",
    help="One YAML recipe to a running LLM service on Triton Inference Server.",
    epilog="Exit codes: 0 ok, 1 our bug, 2 recipe or usage, 3 does not fit or unsupported, 4 toolchain missing or "
    "wrong, 5 a stage failed, 6 artefact missing, stale or corrupt, 7 server not ready, 8 threshold missed, "
    "130 interrupted.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"scalellm-trt {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Echo every command that is started.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO if verbose else logging.WARNING, stream=sys.stderr)


for _name in COMMAND_MODULES:
    importlib.import_module(f"scalellm_trt.cli.{_name}").register(app)


def main() -> None:
    """Run the command line and end the process with the exit code that `errors` documents."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str], commands: typer.Typer = app) -> int:
    """Run one command of `commands`.

    Returns:
        The exit code; nothing is raised.
    """
    try:
        result = commands(arguments, standalone_mode=False)
    except ScaleLLMError as error:
        _report(error, as_json="--json" in arguments)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): point stdout elsewhere so that the exit flush is quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED
    except Exception as error:
        return _usage_error(error) or _bug(error)
    return result if isinstance(result, int) else 0


def _report(error: ScaleLLMError, *, as_json: bool) -> None:
    print(error, file=sys.stderr)
    if as_json:
        problems = error.problems if isinstance(error, ProblemsError) else ()
        details = [
            {
                "file": None if problem.file is None else str(problem.file),
                "line": problem.line,
                "key": problem.key,
                "message": problem.message,
                "hint": problem.hint,
            }
            for problem in problems
        ]
        body = {"kind": type(error).__name__, "exit_code": error.exit_code, "message": error.message}
        print(json.dumps({"error": {**body, "hint": error.hint, "problems": details}}))


def _usage_error(error: Exception) -> int | None:
    """Show a wrong command line as click does; typer vendors click, so the class is known by what it can do."""
    show = getattr(error, "show", None)
    if show is None:
        return None
    show()
    return EXIT_USAGE


def _bug(error: Exception) -> int:
    traceback.print_exception(error)
    print(
        f"\nscalellm-trt {__version__} has a bug: this should not have happened. Please report the lines above "
        f"with the command, the recipe and: Python {platform.python_version()}, {platform.platform()}.",
        file=sys.stderr,
    )
    return EXIT_BUG
