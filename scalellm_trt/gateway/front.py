"""What every request passes: an id, the key, a line in the log; and errors in OpenAI's shape.

Requests that generate go from here straight to their handlers, past Starlette's router and its middleware.
"""

from __future__ import annotations

import logging
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.disconnect import ClientGoneError
from scalellm_trt.gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from scalellm_trt.gateway.api_keys import KeyRing
    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.request_log import RequestRecord
    from scalellm_trt.gateway.tracing import Tracing

    Handler = Callable[[Request, Send], Awaitable[None]]

import orjson

RECORD: Final = "scalellm_trt.record"
CLIENT_GONE: Final = 499
"""nginx's status for a client that left; it stands in the log only."""
_GUARDED: Final = ("/v1/", "/predict", "/v2")
_OPEN: Final = re.compile(r"/v2/health/.*|/v2/models/.*/ready")
"""What probes ask, without a key, of what is guarded otherwise."""
_QUIET: Final = ("/health", "/v2", "/metrics")


class Front:
    """ASGI middleware around the whole gateway."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        keys: KeyRing,
        tracing: Tracing | None = None,
        direct: Mapping[str, Handler] = MappingProxyType({}),
    ) -> None:
        """Guard `app` with `keys`, if there are any, and give requests to `tracing`.

        Args:
            app: gets what is not in `direct`.
            metrics: counts failures.
            keys: open for everybody, or those that clients must have.
            tracing: makes spans.
            direct: path → what answers a POST to it.
        """
        self._app, self._metrics, self._keys, self._tracing = app, metrics, keys, tracing
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = scope[RECORD] = request_log.new_record(scope["method"], scope["path"], headers)

        is_quiet = record.path.startswith(_QUIET)
        if self._tracing is not None and not is_quiet:
            record.trace = self._tracing.begin(record, headers)

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message, record)
            await send(message)

        try:
            record.key_name = self._check_key(record.path, headers)
            await self._pass_on(scope, receive, send_noting)
        except ApiError as error:
            await self._fail(error, record, scope, receive, send_noting)
        except ClientGoneError:
            record.status, record.is_cancelled = CLIENT_GONE, True
        except Exception:
            request_log.LOGGER.exception("a bug", extra={"fields": {"request_id": record.request_id}})
            internal = ApiError(500, f"the gateway failed; its log says why, request {record.request_id}")
            await self._fail(internal, record, scope, receive, send_noting)
        finally:
            if record.trace is not None:
                record.trace.end(record)
            if not is_quiet or request_log.LOGGER.isEnabledFor(logging.DEBUG):
                record.write()

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        handle = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
        if handle is None:
            await self._app(scope, receive, send)
        else:
            await handle(Request(scope, receive), send)

    def _check_key(self, path: str, headers: Headers) -> str | None:
        """Return the name of the request's key, where one is asked for."""
        if self._keys.is_open or not path.startswith(_GUARDED) or _OPEN.fullmatch(path):
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        name = self._keys.name_of(key.strip())
        if scheme.lower() != "bearer" or name is None:
            raise ApiError(401, "a wrong or missing API key in Authorization: Bearer", code="invalid_api_key")
        return name

    async def _fail(self, error: ApiError, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> None:
        record.error = error.message
        self._metrics.note_failure(error.status)
        if record.status is None:
            await json_response(error.body(), error.status, error.headers)(scope, receive, send)


def _add_headers(message: Message, record: RequestRecord) -> None:
    record.status = message["status"]
    MutableHeaders(scope=message)["x-request-id"] = record.request_id
    if record.visit is not None:
        message["headers"] = [*message["headers"], *record.visit.headers()]


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")
