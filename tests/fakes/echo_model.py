"""A decoupled model for the real tritonserver: gives the prompt back, a word a response, at most max_tokens words.

Prompts that begin with a word of its own: `refuse` is an invalid argument, `full` is unavailable, `packages` says
which numpy it has and whose environment it runs in.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

WORD_S = 0.01


def _first(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0]


class TritonPythonModel:
    """What the python backend calls."""

    def execute(self, requests: list[Any]) -> None:
        """Read the inputs, which are gone once this returns, and answer from a thread."""
        for request in requests:
            words = _first(request, "text_input").decode().split()[: int(_first(request, "max_tokens"))]
            threading.Thread(target=self._answer, args=(request, request.get_response_sender(), words)).start()

    def _answer(self, request: Any, sender: Any, words: list[str]) -> None:
        kinds = {"refuse": pb_utils.TritonError.INVALID_ARG, "full": pb_utils.TritonError.UNAVAILABLE}
        if words[0] in kinds:
            error = pb_utils.TritonError(" ".join(words[1:]), kinds[words[0]])
            sender.send(pb_utils.InferenceResponse(error=error), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        if words[0] == "packages":
            words = [np.__version__, sys.prefix]
        for number, word in enumerate(words, 1):
            if request.is_cancelled():
                print(f"cancelled after {number - 1} words", flush=True)
                break
            tensors = [pb_utils.Tensor("text_output", np.array([[f"{word} ".encode()]], dtype=np.object_))]
            tensors.append(pb_utils.Tensor("num_output_tokens", np.array([[1]], dtype=np.int32)))
            if number == len(words):
                tensors.append(pb_utils.Tensor("finish_reason", np.array([[b"length"]], dtype=np.object_)))
            sender.send(pb_utils.InferenceResponse(tensors))
            time.sleep(WORD_S)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
