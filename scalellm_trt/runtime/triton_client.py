"""Parts of an answer in, Triton responses out; the only file that builds the model's output tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .answer import Part
    from .request import TextRequest

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonClient:
    """The client of one request, reached through Triton's response sender."""

    def __init__(self, sender: Any, request: TextRequest) -> None:  # noqa: ANN401  a type of Triton's stub
        """Answer through `sender` what `request` asks for."""
        self._sender = sender
        self._options = request.options
        self._num_input_tokens = len(request.generate.input_ids)

    def send(self, parts: Sequence[Part], *, is_last: bool) -> None:
        """Send one response; see `answer.Client`."""
        response = pb_utils.InferenceResponse([pb_utils.Tensor(*tensor) for tensor in self._tensors(parts)])
        self._sender.send(response, flags=FINAL if is_last else 0)

    def fail(self, message: str) -> None:
        """Send an error; see `answer.Client`."""
        send_error(self._sender, message, pb_utils.TritonError.INTERNAL)

    def close(self) -> None:
        """End without a further response; see `answer.Client`."""
        self._sender.send(flags=FINAL)

    def is_gone(self) -> bool:
        """Ask Triton whether the request was cancelled; see `answer.Client`."""
        return bool(self._sender.is_cancelled())

    def _tensors(self, parts: Sequence[Part]) -> list[tuple[str, NDArray[Any]]]:
        """Return the outputs that the request asked for, each with a batch dimension of 1."""
        options = self._options
        tensors: list[tuple[str, NDArray[Any]]] = []
        if options.text:
            texts = [(options.prompt_text + part.text).encode() for part in parts]
            tensors.append(("text_output", np.array([texts], dtype=np.object_)))
        if options.output_ids:
            rows = [options.prompt_ids + part.token_ids for part in parts]
            tensors.append(("output_ids", _padded(rows, options.pad_id, np.int32)))
            tensors.append(("sequence_length", np.array([[len(row) for row in rows]], dtype=np.int32)))
        if options.log_probs:
            tensors.append(("output_log_probs", _padded([part.log_probs for part in parts], 0.0, np.float32)))
            tensors.append(("cum_log_probs", np.array([[part.cum_log_prob for part in parts]], dtype=np.float32)))
        if options.num_input_tokens:
            tensors.append(("num_input_tokens", np.array([[self._num_input_tokens]], dtype=np.int32)))
        if options.num_output_tokens:
            counts = [len(part.token_ids) for part in parts]
            tensors.append(("num_output_tokens", np.array([counts], dtype=np.int32)))
        if options.reuse and parts[0].num_reused_blocks is not None:
            tensors.append(("kv_cache_reused_blocks", np.array([[parts[0].num_reused_blocks]], dtype=np.int32)))
        if options.sequence_index:
            tensors.append(("sequence_index", np.array([[part.sequence_index for part in parts]], dtype=np.int32)))
            tensors.append(("batch_index", np.zeros((1, 1), dtype=np.int32)))
        if parts[0].finish_reason is not None:
            reasons = [str(part.finish_reason).encode() for part in parts]
            tensors.append(("finish_reason", np.array([reasons], dtype=np.object_)))
        return tensors


def send_error(sender: Any, message: str, code: int) -> None:  # noqa: ANN401
    """End a request with an error."""
    sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code)), flags=FINAL)


def _padded(rows: Sequence[Sequence[float]], fill: float, dtype: type[np.generic]) -> NDArray[Any]:
    """Return (1, num_rows, longest) with short rows filled up."""
    tensor = np.full((1, len(rows), max(map(len, rows))), fill, dtype=dtype)
    for index, row in enumerate(rows):
        tensor[0, index, : len(row)] = row
    return tensor
