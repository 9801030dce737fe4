"""One JSON line a request, on stderr; what a request said about itself stays with it until its line is written."""

from __future__ import annotations

import datetime
import logging
import os
import re
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.gateway.tenants.visit import Visit
    from scalellm_trt.gateway.tracing import RequestTrace

LOGGER: Final = logging.getLogger("scalellm_trt.gateway")
_UNWRITTEN: Final = ("started_s", "is_cancelled", "trace", "visit")
_GOOD_ID: Final = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One HTTP request as it goes on.

    Attributes:
        request_id: the client's `x-request-id`, or one of ours; returned in that header.
        correlation_id: the client's `x-correlation-id`.
        key_name: whose API key it came with; never the key.
        tenant: whose request it is, where there are tenants.
        server: where the request went last, `host:port`.
        num_continued: servers that broke in the middle of the answer, which others continued.
        is_cancelled: the client left before the end.
        trace: its OpenTelemetry spans, where they are asked for.
        visit: what it takes of its tenant's quota.
    """

    request_id: str
    correlation_id: str | None
    method: str
    path: str
    started_s: float = field(default_factory=time.monotonic)
    status: int | None = None
    error: str | None = None
    key_name: str | None = None
    tenant: str | None = None
    is_cancelled: bool = False
    model: str | None = None
    server: str | None = None
    stream: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: Mapping[str, str] | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    num_continued: int | None = None
    finish_reasons: list[str] | None = None
    ttft_ms: float | None = None
    trace: RequestTrace | None = None
    visit: Visit | None = None

    def elapsed_s(self) -> float:
        """Return the seconds since the request came."""
        return time.monotonic() - self.started_s

    def write(self) -> None:
        """Write the line; what is not known is left out."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in _UNWRITTEN}
        fields["cancelled"] = self.is_cancelled or None
        fields["duration_ms"] = round(self.elapsed_s() * 1000, 3)
        LOGGER.info("request", extra={"fields": fields})


def new_id() -> str:
    """Return 128 random bits in hexadecimal."""
    return os.urandom(16).hex()


def new_record(method: str, path: str, headers: Mapping[str, str]) -> RequestRecord:
    """Begin a request's record; an id that would not fit into a log or a header is replaced."""
    given = headers.get("x-request-id", "")
    correlation = headers.get("x-correlation-id", "")
    return RequestRecord(
        request_id=given if _GOOD_ID.fullmatch(given) else new_id(),
        correlation_id=correlation if _GOOD_ID.fullmatch(correlation) else None,
        method=method,
        path=path,
    )


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time_utc = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {"time": time_utc.isoformat(timespec="milliseconds"), "level": record.levelname.lower()}
        line |= {"logger": record.name, "message": record.getMessage()}
        fields = getattr(record, "fields", {})
        line |= {name: value for name, value in fields.items() if value is not None}
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        return orjson.dumps(line).decode()


def set_up(level: str = "info") -> None:
    """Let gateway and HTTP server log JSON to stderr; `warning` leaves out requests, `debug` shows probes too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in (LOGGER.name, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper() if name == LOGGER.name else logging.WARNING)
