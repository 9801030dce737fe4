"""The page's files as answers: read once, each with the headers that keep a browser from doing more than they need."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS: Final = {
    # Nothing from elsewhere, no inline script or style, no frame around it, no form that leaves it.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
INDEX: Final = "index.html"
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def load() -> Mapping[str, Response]:
    """Return an answer for each of the page's files, by name."""
    directory = resources.files(__package__) / "page"
    found = {}
    for file in directory.iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[file.name] = Response(file.read_bytes(), headers={**HEADERS, "content-type": kind})
    return found
