"""Who may ask: the key of the environment and a file of hashed keys, read again when it changes.

A line of the file is `NAME sha256:DIGEST`. SHA-256 and not scrypt: our keys are 256 random bits, which nobody can guess
from their digest however fast it is computed, and a slow hash would be paid for by every request.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from typing import TYPE_CHECKING, Final

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.gateway import request_log

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENVIRONMENT_NAME: Final = "SCALELLM_API_KEY"
"""What the log calls the key of the environment; no name in a file may be that long in capitals and underscores."""
CHECK_EVERY_S: Final = 1.0
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NAME_HINT: Final = "1 to 63 of a-z, 0-9, dots, dashes and underscores, a letter or digit first"
_LINE: Final = re.compile(rf"({NAME.pattern})\s+sha256:([0-9a-f]{{64}})")
_HEADING: Final = "# API keys of scalellm-trt gateway, hashed: NAME sha256:DIGEST. `scalellm-trt key add` makes one.\n"


def new_key() -> str:
    """Return a key of 256 random bits."""
    return f"sk-{secrets.token_urlsafe(32)}"


def digest(key: str) -> str:
    """Return what is kept of a key, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def parse(text: str, file: Path) -> Mapping[str, str]:
    """Read the content of a key file: name → digest. Empty lines and those that begin with # are skipped.

    Raises:
        RecipeError: with every line that is wrong.
    """
    keys: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        # What stands there may be a key that somebody pasted: it is not repeated.
        if found is None:
            message, hint = "is no `NAME sha256:DIGEST`", "Add keys with `scalellm-trt key add NAME --file FILE`."
            problems.append(Problem(file=file, line=number, message=message, hint=hint))
        elif found[1] in keys:
            message = f"the name {found[1]!r} is written twice"
            problems.append(Problem(file=file, line=number, message=message, hint="Rename or remove one of them."))
        else:
            keys[found[1]] = found[2]
    if problems:
        raise RecipeError(problems)
    return keys


def read(file: Path) -> Mapping[str, str]:
    """Read a key file; as `parse`.

    Raises:
        RecipeError: it cannot be read, or is no key file.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        hint = f"Make it with the first key: scalellm-trt key add NAME --file {file}"
        raise RecipeError([Problem(file=file, message=f"cannot be read: {reason}", hint=hint)]) from error
    return parse(text, file)


def write(file: Path, keys: Mapping[str, str]) -> None:
    """Replace a key file at once, readable by its owner only."""
    text = _HEADING + "".join(f"{name} sha256:{value}\n" for name, value in keys.items())
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(file)


def is_readable_by_others(file: Path) -> bool:
    """Tell whether somebody else than the owner may read or change the file."""
    return bool(stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO))


class KeyRing:
    """The keys that are good now."""

    def __init__(self, api_key: str | None, file: Path | None) -> None:
        """Take the environment's key and read the file.

        Raises:
            RecipeError: the file cannot be used.
        """
        self._own = {} if api_key is None else {ENVIRONMENT_NAME: digest(api_key)}
        self._file, self._state, self._checked_s = file, _state(file), time.monotonic()
        self._keys = self._own if file is None else {**self._own, **read(file)}
        self.is_open = api_key is None and file is None
        self._warn()

    def use(self, file: Path | None) -> None:
        """Take the keys of another file, or of none, from now on.

        Raises:
            RecipeError: it cannot be used; the keys of before stay.
        """
        keys = self._own if file is None else {**self._own, **read(file)}
        self._file, self._state, self._keys = file, _state(file), keys
        self.is_open = not self._own and file is None

    def name_of(self, key: str) -> str | None:
        """Return whose key this is; None is nobody's. Takes the same time for every wrong key."""
        self._refresh()
        given, found = digest(key), None
        for name, value in self._keys.items():
            if hmac.compare_digest(given, value):
                found = name
        return found

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if self._file is None or now_s - self._checked_s < CHECK_EVERY_S:
            return
        self._checked_s, before, self._state = now_s, self._state, _state(self._file)
        if self._state == before:
            return
        try:
            self._keys = {**self._own, **read(self._file)}
        except RecipeError as error:
            # Half a file must not lock everybody out.
            fields = {"error": error.message}
            request_log.LOGGER.error("the keys of before stay: the key file is damaged", extra={"fields": fields})
            return
        request_log.LOGGER.info("keys read again", extra={"fields": {"num_keys": len(self._keys)}})
        self._warn()

    def _warn(self) -> None:
        if self._file is not None and is_readable_by_others(self._file):
            fields = {"file": str(self._file), "hint": f"chmod 600 {self._file}"}
            request_log.LOGGER.warning("others may read the key file", extra={"fields": fields})


def _state(file: Path | None) -> tuple[int, int, int] | None:
    """Return what changes when the file does."""
    try:
        status = None if file is None else file.stat()
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_mtime_ns, status.st_size)
