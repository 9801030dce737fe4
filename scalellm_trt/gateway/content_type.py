"""What a request says its body is: JSON, uncompressed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

# `curl -d` says "application/x-www-form-urlencoded" of whatever it sends.
_JSON: Final = ("", "application/json", "application/x-www-form-urlencoded")


def check(headers: Mapping[str, str]) -> None:
    """Refuse a body that says of itself that it is something else.

    Raises:
        ApiError: with status 415.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        message = f"Content-Type: {kind} is not supported; send application/json"
        raise ApiError(415, message, code="unsupported_content_type")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        message = f"Content-Encoding: {encoding} is not supported; send the body as it is"
        raise ApiError(415, message, code="unsupported_content_encoding")
