"""What a Triton client's errors mean to a person: not there, not ready, or asked for something it cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError, ScaleLLMError, ServerNotReadyError
from scalellm_trt.runtime import signature

if TYPE_CHECKING:
    from collections.abc import Sequence

# What gRPC itself says; a model that refuses for now (its queue is full) is UNAVAILABLE too, in its own words.
_CONNECTION_WORDS = ("failed to connect", "connection refused", "socket closed", "name resolution", "dns resolution")
# Inside a stream an error is a text without a status. What Triton's own check of a request begins with:
_REQUEST_WORDS = ("[request id:", "unexpected inference input")
# What a refusal by our models begins with: the input that is wrong.
_REFUSED_INPUTS = tuple(f"{tensor.name}: " for tensor in signature.INPUTS)
START_HINT = "Start it: scalellm-trt serve; or name another address with --url."


def translate(error: Exception, url: str, *, models: Sequence[str] = ()) -> ScaleLLMError:
    """Return our error for one of tritonclient's.

    Args:
        error: a tritonclient `InferenceServerException`, or what its channel raised.
        url: the server, as the user wrote it.
        models: the models that the server has, where they are known.
    """
    status, text = describe(error)
    if status == "INVALID_ARGUMENT" or (status is None and text.startswith(_REQUEST_WORDS + _REFUSED_INPUTS)):
        return RecipeError([Problem(message=text)])
    if status == "NOT_FOUND" or "unknown model" in text:
        known = f"Models there: {', '.join(models)}." if models else "List them: scalellm-trt repo ls"
        return RecipeError([Problem(key="--model", message=f"{url}: {text}", hint=known)])
    if status == "UNAVAILABLE" and any(words in text.lower() for words in _CONNECTION_WORDS):
        return ServerNotReadyError(f"no tritonserver answers at {url}", hint=START_HINT)
    if status == "DEADLINE_EXCEEDED":
        return ServerNotReadyError(f"{url}: did not answer in time", hint=START_HINT)
    return ServerNotReadyError(f"{url}: {text}" if status is None else f"{url}: {status}: {text}")


def describe(error: Exception) -> tuple[str | None, str]:
    """Return the gRPC status, such as `NOT_FOUND`, where there is one, and the text."""
    status = getattr(error, "status", None)
    message = getattr(error, "message", None)
    text = message() if callable(message) else str(error)
    name = status() if callable(status) else None
    return (name.removeprefix("StatusCode.") if isinstance(name, str) else None), str(text or error)
