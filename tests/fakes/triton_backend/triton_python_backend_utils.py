"""Triton's `triton_python_backend_utils`, as strict as the real one where a mistake would cost a day.

Only what a decoupled model uses. Put this file's directory on `sys.path` before the model is imported.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
_ALLOWED_DTYPES = {np.dtype(kind) for kind in (np.bool_, np.int32, np.uint64, np.float16, np.float32, np.object_)}


class TritonModelException(Exception):
    """What the stub raises for wrong use."""


class TritonError:
    """An error of a response."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Tensor:
    """A named array; strings are objects that hold bytes."""

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        if not isinstance(array, np.ndarray) or array.dtype not in _ALLOWED_DTYPES:
            message = f"tensor {name!r}: {getattr(array, 'dtype', type(array))} is not allowed"
            raise TritonModelException(message)
        if array.dtype == np.object_ and not all(isinstance(value, bytes) for value in array.ravel()):
            message = f"tensor {name!r}: a string tensor must hold bytes"
            raise TritonModelException(message)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class InferenceResponse:
    """Outputs or an error."""

    def __init__(self, output_tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        names = [tensor.name() for tensor in output_tensors]
        if len(set(names)) != len(names):
            message = f"an output appears twice: {names}"
            raise TritonModelException(message)
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def error(self) -> TritonError | None:
        return self._error

    def values(self) -> dict[str, list[Any]]:
        """Return the outputs without their batch dimension; texts decoded (not in the real class)."""
        values = {}
        for tensor in self._tensors:
            array = tensor.as_numpy()
            assert array.shape[0] == 1, f"{tensor.name()}: batch dimension missing: {array.shape}"
            row = array[0].tolist()
            values[tensor.name()] = [item.decode() for item in row] if array.dtype == np.object_ else row
        return values


class ResponseSender:
    """Records what is sent; refuses what the stub refuses."""

    def __init__(self) -> None:
        self.responses: list[InferenceResponse] = []
        self.final = threading.Event()
        self.cancelled = False
        self.num_polls = 0
        self._lock = threading.Lock()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        with self._lock:
            if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
                raise TritonModelException("Unable to send response. Unsupported flag provided.")
            if flags == 0 and response is None:
                raise TritonModelException("Inference Response object must be provided when flags is zero.")
            if self.final.is_set():
                raise TritonModelException("Unable to send response. Response sender has been closed.")
            if response is not None:
                self.responses.append(response)
            if flags:
                self.final.set()

    def is_cancelled(self) -> bool:
        self.num_polls += 1
        return self.cancelled


class InferenceRequest:
    """One request of the core."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._inputs = [Tensor(name, array) for name, array in tensors.items()]
        self.sender = ResponseSender()

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def get_response_sender(self) -> ResponseSender:
        return self.sender


class Logger:
    """The server's log."""

    lines: list[str] = []  # noqa: RUF012  one log, as in the real server

    @classmethod
    def log_warn(cls, message: str) -> None:
        cls.lines.append(message)

    log_error = log_info = log_warn
