"""A request's tensors by name in, typed values out; a value of the wrong shape is named."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .engine_api import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Inputs:
    """Reads the tensors of one request. Types were checked by Triton; every method raises `InvalidRequestError`."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take the tensors by name; each has a leading batch dimension of 1."""
        self._tensors = tensors

    def has(self, name: str) -> bool:
        """Return whether the request holds `name`."""
        return name in self._tensors

    def asks_for(self, name: str) -> bool:
        """Return whether `name` would change anything: false, 0.0 and an empty text do not, an id always does."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return False
        is_number = np.issubdtype(tensor.dtype, np.integer)
        return bool(tensor.size) and (is_number or any(bool(value) for value in tensor.ravel()))

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a yes or no."""
        value = self._scalar(name)
        return default if value is None else bool(value)

    def integer(self, name: str, *, low: int, high: int) -> int | None:
        """Return a whole number, low <= value <= high."""
        value = self._scalar(name)
        if value is None:
            return None
        if not low <= int(value) <= high:
            message = f"{name}: must lie between {low} and {high}, found {int(value)}"
            raise InvalidRequestError(message)
        return int(value)

    def real(self, name: str, *, low: float, high: float = math.inf) -> float | None:
        """Return a finite number, low <= value <= high."""
        value = self._scalar(name)
        if value is None:
            return None
        number = float(value)
        if not (math.isfinite(number) and low <= number <= high):
            allowed = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g}"
            message = f"{name}: must be {allowed}, found {number:g}"
            raise InvalidRequestError(message)
        return number

    def reals(self, name: str, *, max_count: int) -> tuple[float, ...]:
        """Return several finite numbers."""
        tensor = self._tensors.get(name)
        values = [] if tensor is None else [float(value) for value in tensor.ravel()]
        if len(values) > max_count:
            message = f"{name}: at most {max_count} are allowed, found {len(values)}"
            raise InvalidRequestError(message)
        if not all(map(math.isfinite, values)):
            message = f"{name}: every value must be finite"
            raise InvalidRequestError(message)
        return tuple(values)

    def ids(self, name: str, *, max_count: int) -> tuple[int, ...] | None:
        """Return token ids; too many are refused before they become objects of 50 times their size."""
        tensor = self._tensors.get(name)
        if tensor is not None and tensor.size > max_count:
            message = f"{name}: {tensor.size} tokens are more than max_input_len ({max_count})"
            raise InvalidRequestError(message)
        return None if tensor is None else tuple(tensor.ravel().tolist())

    def text(self, name: str) -> bytes | None:
        """Return one text as its UTF-8 bytes."""
        value = self._scalar(name)
        if value is None:
            return None
        return value if isinstance(value, bytes) else str(value).encode()

    def texts(self, name: str, *, max_count: int, max_bytes: int) -> tuple[str, ...]:
        """Return several texts, without the empty ones."""
        tensor = self._tensors.get(name)
        values = [] if tensor is None else [value for value in tensor.ravel().tolist() if value]
        if len(values) > max_count:
            message = f"{name}: at most {max_count} are allowed, found {len(values)}"
            raise InvalidRequestError(message)
        for value in values:
            if len(value) > max_bytes:
                message = f"{name}: each may have at most {max_bytes} bytes, found one of {len(value)}"
                raise InvalidRequestError(message)
        return tuple(decode(name, value) if isinstance(value, bytes) else str(value) for value in values)

    def _scalar(self, name: str) -> Any:  # noqa: ANN401  an element of whatever type the input has
        """Return the only element of a tensor, or None if the request does not hold it."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        if tensor.size != 1:
            message = f"{name}: must hold exactly 1 value, found {tensor.size}"
            raise InvalidRequestError(message)
        return tensor.ravel()[0]


def decode(name: str, value: bytes) -> str:
    """Return `value` as text.

    Raises:
        InvalidRequestError: it is no UTF-8.
    """
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        message = f"{name}: is not valid UTF-8 at byte {error.start}"
        raise InvalidRequestError(message) from error
