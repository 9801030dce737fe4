"""`docs/reference/cli.md`, made from the commands themselves and the error tree: no terminal, width or colour in it."""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import typer

from scalellm_trt import errors
from scalellm_trt.cli.command_line import app

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTRODUCTION: Final = """\
# Command line reference

Generated from the commands by `scripts/generate_docs.py`; do not edit. `scalellm-trt COMMAND --help` says the same.

An error goes to stderr: where, what was found, what is allowed, what to do next. With `--json`, stdout holds one JSON
value, also after an error: `{"error": {"kind", "exit_code", "message", "hint", "problems"}}`.
"""
_OUTSIDE_THE_TREE: Final = {
    0: "It did what it says.",
    1: "A bug of ours: the traceback says what to report.",
    130: "Interrupted by Ctrl-C.",
}
_TYPE_NAMES: Final = {str: "text", int: "whole number", float: "number", Path: "path", bool: "flag"}


def cli_reference() -> str:
    """Return the reference as Markdown."""
    root = typer.main.get_command(app)
    sections = [_section(path, command) for path, command in commands()]
    everywhere = f"## Before any command\n\n{_table(root)}"
    return "\n".join([_INTRODUCTION, _exit_codes(), everywhere, *sections])


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, as what is typed after `scalellm-trt` and typer's own object."""
    yield from _below("", typer.main.get_command(app))


def exit_codes() -> dict[int, str]:
    """Return every exit code of the command line and what it means."""
    meanings = dict(_OUTSIDE_THE_TREE)
    for error in _branches(errors.ScaleLLMError):
        meanings.setdefault(error.exit_code, (error.__doc__ or "").strip().splitlines()[0])
    return dict(sorted(meanings.items()))


def _branches(error: type[errors.ScaleLLMError]) -> Iterator[type[errors.ScaleLLMError]]:
    for branch in error.__subclasses__():
        # Leaves of other modules share the code of the branch that they grow on.
        if branch.__module__ == errors.__name__:
            yield branch
            yield from _branches(branch)


def _below(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  typer vendors click, untyped here
    for name, command in group.commands.items():
        path = f"{prefix} {name}".strip()
        if hasattr(command, "commands"):
            yield from _below(path, command)
        else:
            yield path, command


def _section(path: str, command: Any) -> str:  # noqa: ANN401
    arguments = [parameter for parameter in command.params if not parameter.opts[0].startswith("-")]
    usage = " ".join(["scalellm-trt", path, *(_placeholder(argument) for argument in arguments), "[OPTIONS]"])
    help_text = "\n".join(line.strip() for line in command.help.splitlines()).strip()
    return f"## {path}\n\n```\n{usage}\n```\n\n{help_text}\n\n{_table(command)}"


def _placeholder(argument: Any) -> str:  # noqa: ANN401
    name = argument.name.upper() + ("…" if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def _table(command: Any) -> str:  # noqa: ANN401
    hints = get_type_hints(command.callback, include_extras=True)
    # The options of typer itself, such as --install-completion, have no parameter of ours.
    rows = [_row(parameter, hints[parameter.name]) for parameter in command.params if parameter.name in hints]
    return "\n".join(["| | takes | default | what it is |", "|---|---|---|---|", *rows, ""])


def _row(parameter: Any, hint: object) -> str:  # noqa: ANN401
    if parameter.opts[0].startswith("-"):
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    else:
        names = f"`{_placeholder(parameter)}`"
    about = " ".join((parameter.help or _help(hint)).split()).replace("|", "\\|")
    return f"| {names} | {_takes(hint)} | {_default(parameter)} | {about} |"


def _default(parameter: Any) -> str:  # noqa: ANN401
    if parameter.required:
        return "**required**"
    return "" if parameter.default is None or parameter.default is False else f"`{parameter.default}`"


def _takes(hint: object) -> str:
    """Say in words what a parameter takes, such as `whole number, 1 to 65535`."""
    kind, several = _plain_type(hint)
    words = _TYPE_NAMES[kind] + (", several" if several else "")
    info = _info(hint)
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    if low is not None and high is not None:
        return f"{words}, {low:g} to {high:g}" if kind is float else f"{words}, {low} to {high}"
    return words if low is None else f"{words}, at least {low:g}"


def _plain_type(hint: object) -> tuple[type, bool]:
    """Return what one value is, and whether there may be several: `list[str] | None` is (str, True)."""
    origin, arguments = get_origin(hint), [item for item in get_args(hint) if item is not types.NoneType]
    if origin is Annotated or origin in (Union, types.UnionType):
        return _plain_type(arguments[0])
    if origin is list:
        return arguments[0], True
    assert isinstance(hint, type)
    return hint, False


def _info(hint: object) -> object:
    """Return typer's description of the parameter."""
    return next((item for item in get_args(hint)[1:] if hasattr(item, "param_decls")), None)


def _help(hint: object) -> str:
    return str(getattr(_info(hint), "help", None) or "")


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in exit_codes().items()]
    return "\n".join(["## Exit codes", "", "| code | meaning |", "|---|---|", *rows, ""])
