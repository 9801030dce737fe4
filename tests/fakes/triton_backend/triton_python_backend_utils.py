"""Triton's `triton_python_backend_utils`, as strict as the real one where a mistake would cost a day.

Only what a decoupled model uses, and requests to other models (BLS). Put this file's directory on `sys.path` before
the model is imported.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_MEMORY_CPU, TRITONSERVER_MEMORY_CPU_PINNED, TRITONSERVER_MEMORY_GPU = range(3)
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

    def has_error(self) -> bool:
        return self._error is not None

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


class PreferredMemory:
    """Where responses are wanted."""

    def __init__(self, preferred_memory_type: int, preferred_device_id: int = 0) -> None:
        self.memory_type, self.device_id = preferred_memory_type, preferred_device_id


class ServedModel:
    """Another model of the server, which `InferenceRequest.exec` reaches by its name in `SERVED`.

    `inputs`: name → (dtype, dims without the batch dimension, whether it is optional), checked as the core does.
    """

    def __init__(
        self, model: Any, inputs: Mapping[str, tuple[np.dtype[Any], tuple[int, ...], bool]], outputs: Sequence[str]
    ) -> None:
        self.model, self.inputs, self.outputs = model, inputs, outputs
        self.can_cancel = True  # python backends before 25.04 cannot
        self.requests: list[InferenceRequest] = []

    def check(self, request: InferenceRequest) -> None:
        sent = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        missing = [name for name, (_, _, optional) in self.inputs.items() if not optional and name not in sent]
        if missing:
            raise TritonModelException(f"expected the required inputs {missing}")
        for name, array in sent.items():
            if name not in self.inputs:
                raise TritonModelException(f"unexpected inference input {name!r}")
            dtype, dims, _ = self.inputs[name]
            fits = array.ndim == 1 + len(dims) and array.shape[0] == 1
            fits = fits and all(size in (-1, n) for n, size in zip(array.shape[1:], dims, strict=True))
            if array.dtype != dtype or not fits:
                raise TritonModelException(f"input {name!r}: {array.dtype} {array.shape} is not {dtype} [1, *{dims}]")
        unknown = set(request.requested_output_names()) - set(self.outputs)
        if unknown:
            raise TritonModelException(f"unexpected inference outputs {sorted(unknown)}")


SERVED: dict[str, ServedModel] = {}
"""What BLS reaches."""


class ResponseIterator:
    """The responses of an inner request as they come; like the real one it blocks until the next."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[InferenceResponse | None, int]] = queue.Queue()
        self.is_over = False

    def put(self, response: InferenceResponse | None, flags: int) -> None:
        self._queue.put((response, flags))

    def __iter__(self) -> Iterator[InferenceResponse]:
        return self

    def __next__(self) -> InferenceResponse:
        if self.is_over:
            raise StopIteration
        response, flags = self._queue.get(timeout=10)
        self.is_over = flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL
        return InferenceResponse([]) if response is None else response  # the last one may be empty


class CancellableResponseIterator(ResponseIterator):
    """That of Triton 25.04 and later."""

    def __init__(self, sender: ResponseSender) -> None:
        super().__init__()
        self._sender = sender

    def cancel(self) -> None:
        self._sender.cancelled = True


class _InnerSender(ResponseSender):
    """The response sender that the asked model gets: what it sends goes to the iterator."""

    responses_of: ResponseIterator

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        super().send(response, flags)
        self.responses_of.put(response, flags)


class InferenceRequest:
    """A request of the core, or (with `model_name`) one to another model."""

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]] | None = None,
        *,
        model_name: str = "",
        request_id: str = "",
        requested_output_names: Sequence[str] = (),
        inputs: Sequence[Tensor] = (),
        preferred_memory: PreferredMemory | None = None,
    ) -> None:
        self._inputs = [*inputs, *(Tensor(name, array) for name, array in (tensors or {}).items())]
        self._model_name, self._request_id = model_name, request_id
        self._outputs = list(requested_output_names)
        self.preferred_memory = preferred_memory
        self.sender = ResponseSender()

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def request_id(self) -> str:
        return self._request_id

    def requested_output_names(self) -> list[str]:
        return self._outputs

    def get_response_sender(self) -> ResponseSender:
        return self.sender

    def exec(self, *, decoupled: bool = False) -> ResponseIterator:
        """Ask the other model."""
        if not decoupled:
            raise TritonModelException("the model is decoupled: exec needs decoupled=True")
        if self._model_name not in SERVED:
            raise TritonModelException(
                f"Failed for execute the inference request. Model {self._model_name!r} not found"
            )
        served = SERVED[self._model_name]
        served.check(self)
        served.requests.append(self)
        sender = _InnerSender()
        sender.responses_of = CancellableResponseIterator(sender) if served.can_cancel else ResponseIterator()
        self.sender = sender
        served.model.execute([self])
        return sender.responses_of


class Logger:
    """The server's log."""

    lines: list[str] = []  # noqa: RUF012  one log, as in the real server

    @classmethod
    def log_warn(cls, message: str) -> None:
        cls.lines.append(message)

    log_error = log_info = log_warn
