"""The admin listener: the operator's page and what else is not for clients, beside the API that the page tries.

It is told by the port of the socket that a connection came in by, which no client can choose as it can a header.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

import orjson
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from scalellm_trt.gateway.api_keys import digest
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.listening import is_loopback
from scalellm_trt.gateway.ui import files

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from scalellm_trt.gateway.api_keys import KeyRing
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.ui.state import State

PATHS: Final = ("/ui", "/admin")
"""What begins with one of these is answered at the admin listener, and nowhere else."""
_FILES: Final = re.compile(r"/ui/?|/ui/[a-z]+\.(html|css|js|svg)")
_ASKED_BY_CLIENTS: Final = ("/v1/", "/predict")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class AdminDoor:
    """ASGI in front of the whole gateway: who came in by the admin listener may see its paths."""

    def __init__(self, app: ASGIApp, admin: ASGIApp, port: int, options: GatewayOptions, keys: KeyRing) -> None:
        """Let those that came in by `port` see `admin` beside `app`, whose clients need one of `keys`."""
        self._app, self._admin, self._port = app, admin, port
        self._is_loopback = is_loopback(options.admin_host)
        self._keys = keys
        self._key_digest = None if options.admin_key is None else digest(options.admin_key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request."""
        app = self._app
        if scope["type"] == "http" and scope["server"][1] == self._port:
            headers = Headers(scope=scope)
            try:
                self._check_origin(scope["method"], headers)
                self._check_key(scope["path"], headers)
                if scope["path"].startswith(PATHS):
                    app = self._admin
            except ApiError as error:
                app = json_answer(error.body(), error.status)
        await app(scope, receive, send)

    def _check_origin(self, method: str, headers: Headers) -> None:
        """Refuse what other web pages make an operator's browser ask."""
        host = headers.get("host", "").lower()
        if self._is_loopback and _without_port(host) not in _LOOPBACK_NAMES:
            # A name that was pointed at 127.0.0.1 later (DNS rebinding) makes any page the same origin as this one.
            raise ApiError(403, f"the admin listener answers to localhost, not to {host!r}", code="wrong_host")
        site = headers.get("sec-fetch-site", "none")
        follows_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("none", "same-origin") and not follows_link:
            raise ApiError(403, "the admin listener answers no other web pages", code="wrong_origin")

    def _check_key(self, path: str, headers: Headers) -> None:
        """Ask for the admin key, where there is one.

        The page itself says nothing and can be had without. So can what asks for a client's key; an API that is open to
        everybody is not, for its own listener may be open on loopback only.
        """
        asks_for_other_key = not self._keys.is_open and path.startswith(_ASKED_BY_CLIENTS)
        if self._key_digest is None or asks_for_other_key or _FILES.fullmatch(path):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        is_good = hmac.compare_digest(digest(key.strip()), self._key_digest)
        if scheme.lower() != "bearer" or not is_good:
            raise ApiError(401, "a wrong or missing admin key in Authorization: Bearer", code="invalid_admin_key")


def routes_of_page(state: Callable[[], Awaitable[State]]) -> list[Route]:
    """Return the routes of the page; `state` says what it shows."""
    pages = files.load()

    async def page(request: Request) -> Response:
        return pages[files.INDEX]

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        return pages[name] if name in pages else json_answer(ApiError(404, f"there is no {name!r}").body(), 404)

    async def say_state(request: Request) -> Response:
        return json_answer(await state())

    async def to_page(request: Request) -> Response:
        return RedirectResponse("/ui/", headers=files.HEADERS)

    return [
        Route("/ui", to_page),
        Route("/ui/", page),
        Route("/ui/state.json", say_state),
        Route("/ui/{name}", file),
    ]


def admin_app(routes: list[Route]) -> ASGIApp:
    """Return what answers at the admin listener's paths."""
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})


def json_answer(body: object, status: int = 200) -> Response:
    """Return JSON that no cache keeps."""
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return json_answer(ApiError(error.status_code, message).body(), error.status_code)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
