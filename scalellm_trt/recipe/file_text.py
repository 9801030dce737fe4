"""A path in, the text of a recipe file out; whatever else lies there (folder, pipe, binary) is refused by name."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

MAX_BYTES = 64 * 1024

_BYTE_ORDER_MARK = "\ufeff"


def read_text(path: Path) -> str:
    """Return the text of the file at `path`, without a byte order mark.

    Raises:
        RecipeError: there is no such file, it cannot be read, or it is not UTF-8 text of at most `MAX_BYTES`.
    """
    data = _read_bytes(path)
    if len(data) > MAX_BYTES:
        message = f"is larger than {MAX_BYTES // 1024} KiB"
        _refuse(path, message, "A recipe is a few KiB of YAML; is this another file?")
    try:
        return data.decode().removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise RecipeError([Problem(file=path, line=line, message=message, hint="Save the file as UTF-8.")]) from None


def _read_bytes(path: Path) -> bytes:
    try:
        # Asked before opening: opening a named pipe would wait for a writer.
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        _refuse(path, "does not exist", "`scalellm-trt recipes` lists the recipes that are there.")
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror}", "Check the path and its permissions.")
    except ValueError as error:
        _refuse(path, f"cannot be read: {error}", "Check the path.")
    if stat.S_ISDIR(mode):
        _refuse(path, "is a directory", f"Name one recipe in it, such as {path}/NAME.yaml.")
    _refuse(path, "is not a regular file", "Write the recipe to a file first.")


def _refuse(path: Path, message: str, hint: str) -> NoReturn:
    raise RecipeError([Problem(file=path, message=message, hint=hint)]) from None
