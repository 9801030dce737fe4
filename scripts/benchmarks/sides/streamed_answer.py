"""One request on a gRPC stream of its own, by `tritonclient.grpc.aio`: tensors in, responses out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from numpy.typing import NDArray
    from tritonclient.grpc import InferInput, InferResult
    from tritonclient.grpc.aio import InferenceServerClient

Tensors = dict[str, "NDArray[np.generic]"]


def tensors(**values: object) -> Tensors:
    """Return request tensors with a batch dimension of 1; the type follows from the Python type of the value.

    A list becomes one tensor of several elements. An array is taken as it is.
    """
    return {name: _tensor(value) for name, value in values.items()}


def _tensor(value: object) -> NDArray[np.generic]:
    if isinstance(value, np.ndarray):
        return value
    row = [item.encode() if isinstance(item, str) else item for item in (value if isinstance(value, list) else [value])]
    kinds: dict[type, type[np.generic]] = {bytes: np.object_, bool: np.bool_, int: np.int32, float: np.float32}
    return np.array([row], dtype=kinds[type(row[0])])


async def responses(
    client: InferenceServerClient, model: str, inputs: Mapping[str, NDArray[np.generic]]
) -> AsyncIterator[InferResult]:
    """Yield the responses of one request; closing the generator cancels it.

    Raises:
        tritonclient.utils.InferenceServerException: the server refused or failed.
    """

    async def requests() -> AsyncIterator[dict[str, object]]:
        yield {"model_name": model, "inputs": _encode(inputs), "enable_empty_final_response": True}

    stream = client.stream_infer(requests())
    try:
        async for result, error in stream:
            if error is not None:
                raise error
            yield result
    finally:
        stream.cancel()


def _encode(inputs: Mapping[str, NDArray[np.generic]]) -> list[InferInput]:
    from tritonclient.grpc import InferInput
    from tritonclient.utils import np_to_triton_dtype

    encoded = []
    for name, values in inputs.items():
        tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        encoded.append(tensor)
    return encoded
