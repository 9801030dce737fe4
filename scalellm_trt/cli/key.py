"""`key add|ls|rm`: the file of hashed API keys that `gateway --keys` lets in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

FileOption = Annotated[Path, typer.Option("--file", help="The key file.")]
NameArgument = Annotated[str, typer.Argument(help="Whose key it is; the gateway's log names it.", show_default=False)]
DEFAULT_FILE = Path("gateway.keys")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    keys = typer.Typer(help="API keys of the gateway.", no_args_is_help=True)
    keys.command("add")(add)
    keys.command("ls")(ls)
    keys.command("rm")(rm)
    app.add_typer(keys, name="key")


def add(name: NameArgument, file: FileOption = DEFAULT_FILE) -> None:
    """Make a key and print it, this once; the file gets its hash. A running gateway lets it in a second later."""
    from scalellm_trt.gateway import api_keys

    if not api_keys.NAME.fullmatch(name):
        raise RecipeError([Problem(key="NAME", message=f"{name!r} is no name", hint=f"Allowed: {api_keys.NAME_HINT}.")])
    keys = _read(file) if file.exists() else {}
    if name in keys:
        hint = f"Take another name, or remove the old key: scalellm-trt key rm {name} --file {file}"
        raise RecipeError([Problem(file=file, key="NAME", message=f"{name!r} has a key already", hint=hint)])
    key = api_keys.new_key()
    api_keys.write(file, {**keys, name: api_keys.digest(key)})
    typer.echo(f"{file}: the key of {name}, which is shown this once:", err=True)
    typer.echo(key)


def ls(file: FileOption = DEFAULT_FILE) -> None:
    """List the names in the file."""
    for name in _read(file):
        typer.echo(name)


def rm(name: NameArgument, file: FileOption = DEFAULT_FILE) -> None:
    """Remove a key. A running gateway refuses it a second later."""
    from scalellm_trt.gateway import api_keys

    keys = _read(file)
    if name not in keys:
        hint = f"Keys here: {', '.join(keys) or 'none'}."
        raise RecipeError([Problem(file=file, key="NAME", message=f"{name!r} has no key", hint=hint)])
    api_keys.write(file, {other: digest for other, digest in keys.items() if other != name})
    typer.echo(f"{file}: the key of {name} is removed", err=True)


def _read(file: Path) -> Mapping[str, str]:
    from scalellm_trt.gateway import api_keys

    return api_keys.read(file)
