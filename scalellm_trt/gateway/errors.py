"""What a client of the gateway is told when something is wrong: a status and OpenAI's error object.

A model's own refusals come as a text inside the stream, without a status; what they begin with says what they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalellm_trt.runtime import signature

if TYPE_CHECKING:
    from collections.abc import Mapping

OPENAI_FIELDS: Final = {
    "embedding_bias_ids": "logit_bias",
    "embedding_bias_weights": "logit_bias",
    "guided_decoding_guide": "response_format",
    "guided_decoding_guide_type": "response_format",
    "num_return_sequences": "n",
    "return_log_probs": "logprobs",
    "stop_words": "stop",
}
"""Inputs of the model that OpenAI's API calls otherwise."""

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_BUSY: Final = ("max_queue_size: ", "the model is being unloaded")
_REQUEST_WORDS: Final = ("[request id:", "unexpected inference input")
_INPUTS: Final = frozenset(tensor.name for tensor in signature.INPUTS)


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        param: the field that is wrong, if it is one.
        code: OpenAI's word for the case, if it has one.
        headers: of the answer, beside those that every answer has.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take what the client is told."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or ({"retry-after": "1"} if status in (429, 503) else {})

    def body(self) -> dict[str, object]:
        """Return OpenAI's error object."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def invalid(param: str | None, message: str) -> ApiError:
    """Return the error for a field that cannot be honoured."""
    return ApiError(400, f"{param}: {message}" if param else message, param=param)


def from_model(message: str) -> ApiError:
    """Return the error for a text that the server or the model sent inside a stream."""
    if message.startswith(_BUSY):
        return ApiError(503, message, code="overloaded")
    name, _, reason = message.partition(": ")
    if name in _INPUTS and reason:
        return invalid(OPENAI_FIELDS.get(name, name), reason)
    if message.lower().startswith(_REQUEST_WORDS):
        return invalid(None, message)
    if "unknown model" in message:
        return ApiError(503, f"the server has not loaded this model: {message}", code="model_not_loaded")
    return ApiError(500, message)


def from_status(status: str, details: str) -> ApiError:
    """Return the error for a gRPC call that ended with `status`, such as `UNAVAILABLE`."""
    if status == "INVALID_ARGUMENT":
        return from_model(details) if details.partition(": ")[0] in _INPUTS else invalid(None, details)
    if status == "NOT_FOUND":
        return ApiError(503, f"the server has not loaded this model: {details}", code="model_not_loaded")
    if status == "UNAVAILABLE":
        return ApiError(503, f"the model's server does not answer: {details}", code="upstream_unavailable")
    if status == "RESOURCE_EXHAUSTED":
        return ApiError(429, details)
    return ApiError(500, f"{status}: {details}")
