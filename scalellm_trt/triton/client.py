"""Stream text from the text model of a running tritonserver over gRPC."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.errors import ServerNotReadyError
from scalellm_trt.triton.client_errors import translate

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from tritonclient.grpc import InferInput, InferResult

CHUNK_TIMEOUT_S = 300.0
# Asked for wherever the model can say it; an unlisted input would be refused.
REPORT_INPUTS = ("exclude_input_in_output", "return_num_input_tokens", "return_num_output_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextParams:
    """How to continue a prompt. None leaves a choice to the model, whose default is greedy."""

    max_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChunk:
    """New text since the last chunk, possibly none; what the model did not say is None.

    `num_output_tokens` counts the tokens of this chunk, `num_input_tokens` those of the whole prompt.
    """

    text: str
    finish_reason: str | None = None
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None


def input_tensors(prompt: str, params: TextParams, declared: frozenset[str]) -> dict[str, NDArray[np.generic]]:
    """Return a request's tensors by name, each `[1, n]` with the batch dimension first.

    Args:
        prompt: raw text; no chat template is applied.
        params: what is None is not sent.
        declared: the model's inputs; of `REPORT_INPUTS` only those among them are sent.
    """
    import numpy as np

    tensors = {
        "text_input": np.array([[prompt.encode()]], dtype=np.object_),
        "max_tokens": np.array([[params.max_tokens]], dtype=np.int32),
        "stream": np.array([[True]], dtype=np.bool_),
    }
    optional: Mapping[str, tuple[float | None, type[np.generic]]] = {
        "temperature": (params.temperature, np.float32),
        "top_k": (params.top_k, np.int32),
        "top_p": (params.top_p, np.float32),
        "seed": (params.seed, np.uint64),
    }
    for name, (value, kind) in optional.items():
        if value is not None:
            tensors[name] = np.array([[value]], dtype=kind)
    if params.stop_words:
        tensors["stop_words"] = np.array([[word.encode() for word in params.stop_words]], dtype=np.object_)
    for name in REPORT_INPUTS:
        if name in declared:
            tensors[name] = np.array([[True]], dtype=np.bool_)
    return tensors


def stream(
    url: str,
    model: str,
    prompt: str,
    params: TextParams,
    *,
    declared: frozenset[str] = frozenset(REPORT_INPUTS),
    timeout_s: float = CHUNK_TIMEOUT_S,
) -> Generator[TextChunk, None, None]:
    """Yield the answer as the model makes it; closing the iterator cancels the request.

    Args:
        url: `host:port` of the server's gRPC.
        model: the text model's name.
        prompt: raw text.
        params: how to continue it.
        declared: the inputs that the model has, from `served.inspect`.
        timeout_s: longest wait for the next chunk.

    Raises:
        ServerNotReadyError: nothing answers, the server failed, or a chunk took longer than `timeout_s`.
        RecipeError: the model refuses the request or is not there; in the server's words.
    """
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    answers: queue.SimpleQueue[tuple[InferResult | None, Exception | None]] = queue.SimpleQueue()
    client = InferenceServerClient(url)
    is_over = False
    try:
        # Not with the header `triton_grpc_error`, which ends a stream with a status: one such stream in some hundreds
        # kills a Triton 2.51, whose handling of a cancelled stream races with the end of it.
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(
            model, _encode(input_tensors(prompt, params, declared)), enable_empty_final_response=True
        )
        while True:
            result, error = answers.get(timeout=timeout_s)
            is_over = result is None or result.get_response().parameters["triton_final_response"].bool_param
            if error is not None or result is None:
                raise translate(error or RuntimeError("an empty answer"), url) from error
            yield _chunk(result)
            if is_over:
                return
    except queue.Empty as error:
        message = f"{url}: {model} gave nothing for {timeout_s:g} s"
        raise ServerNotReadyError(message, hint="Its server may be overloaded: look at its log.") from error
    except InferenceServerException as error:
        # A stream that broke before the request was sent says why through its callback only.
        reported = None if answers.empty() else answers.get()[1]
        raise translate(reported or error, url) from error
    finally:
        # Triton 2.51 never forgets a request that is cancelled after it failed, and waits for it when it is stopped.
        client.stop_stream(cancel_requests=not is_over)
        client.close()


def _encode(tensors: Mapping[str, NDArray[np.generic]]) -> list[InferInput]:
    from tritonclient.grpc import InferInput
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, values in tensors.items():
        tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return inputs


def _chunk(result: InferResult) -> TextChunk:
    text = _first(result, "text_output")
    reason = _first(result, "finish_reason")
    num_input_tokens, num_output_tokens = (_first(result, f"num_{side}_tokens") for side in ("input", "output"))
    return TextChunk(
        text=_decode(text) or "",
        finish_reason=_decode(reason) or None,
        num_input_tokens=num_input_tokens if isinstance(num_input_tokens, int) else None,
        num_output_tokens=num_output_tokens if isinstance(num_output_tokens, int) else None,
    )


def _first(result: InferResult, name: str) -> object:
    """Return a tensor's first element; None where the response does not hold it."""
    values = result.as_numpy(name)
    return None if values is None or values.size == 0 else values.reshape(-1)[:1].tolist()[0]


def _decode(value: object) -> str | None:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else None
