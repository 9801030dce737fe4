"""tritonserver's log in, what a person needs from it out: which models are loading, and why it did not start."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_LINE_LENGTH = 300

_LOADING = re.compile(r"""loading: ([^:"]+):\d+""")
_LOADED = re.compile(r"successfully loaded '([^']+)'")
_MODEL_FAILED = re.compile(r"""failed to load '([^']+)' version \d+: (.*?)"?\s*$""")
_POLL_FAILED = re.compile(r"""Poll failed for model directory '([^']+)': (.*?)"?\s*$""")
_MODEL_REFUSED = re.compile(r"""failed to load model '([^']+)': (.*?)"?\s*$""")
_PARSE_ERROR = re.compile(r"Error parsing text-format inference\.ModelConfig: (.*)$")
_PORT_IN_USE = re.compile(r"failed to start (\w+) service: .*'([^']+)' already in use")
_NO_LIBRARY = re.compile(r"error while loading shared libraries: (.*)$")
_BAD_OPTION = re.compile(r"(unrecognized option .*|option .* requires an argument.*)$")
_CONTAINER_FAILED = re.compile(r"^docker: (?:Error response from daemon: )?(.*)$")
_CREATING = re.compile(r"error: creating server: (.*)$")


def models_in_progress(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names of the models that loading has begun for, and of those that are loaded."""
    loading: dict[str, None] = {}
    loaded: dict[str, None] = {}
    for line in lines:
        if match := _LOADING.search(line):
            loading[match[1]] = None
        if match := _LOADED.search(line):
            loaded[match[1]] = None
    return list(loading), list(loaded)


def failure_reasons(lines: Iterable[str]) -> list[str]:
    """Say why the server did not start, the most telling reasons only; empty when the log does not say."""
    causes: dict[str, None] = {}
    last_resort: dict[str, None] = {}
    parse_error = ""
    for line in lines:
        if match := _PARSE_ERROR.search(line):
            parse_error = match[1]
        elif match := _POLL_FAILED.search(line):
            reason = parse_error if parse_error and "read text proto" in match[2] else _unescape(match[2])
            causes[f"the directory {match[1]} is not a model: {reason}"] = None
        elif match := _MODEL_FAILED.search(line) or _MODEL_REFUSED.search(line):
            causes[f"the model {match[1]} failed to load: {_unescape(match[2])}"] = None
        elif match := _PORT_IN_USE.search(line):
            causes[f"{match[2]} ({match[1]}) is already in use"] = None
        elif match := _CONTAINER_FAILED.match(line):
            causes[f"the container did not start: {match[1]}"] = None
        elif match := _NO_LIBRARY.search(line) or _BAD_OPTION.search(line):
            causes[match[1]] = None
        elif match := _CREATING.search(line):
            last_resort[match[1]] = None
    return list(causes or last_resort)


def last_lines(lines: Sequence[str], num_lines: int = 20) -> list[str]:
    """Return the end of a log without the tables of settings that tritonserver prints last, each line shortened."""
    telling = [line for line in lines if line.strip() and not line.startswith(("+-", "| "))]
    return [line if len(line) <= MAX_LINE_LENGTH else f"{line[:MAX_LINE_LENGTH]}…" for line in telling[-num_lines:]]


def _unescape(message: str) -> str:
    """Turn the log's one-line form of a message into lines, and leave its empty ones out."""
    lines = message.replace("\\n", "\n").splitlines()
    return "\n    ".join(line for line in lines if line.strip())
