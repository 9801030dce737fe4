"""Runs inside tritonserver: a model without a model, that makes one token a step for all live requests together.

A step takes `step_ms`, and `request_ms` more for each request.

It answers a service's token contract. When it sent what is written into a file that the measuring process maps: row =
the request's `seed`, column = the number of the token, seconds of the monotonic clock; so a token's delay is known and
not only the gaps, which hide a backlog. A request with `min_tokens` is asked each 2 ms whether its client has gone.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROWS, COLUMNS = 8192, 512
FIRST_WORD, NUM_WORDS = 256, 1000
POLL_S = 0.002
LEFT = COLUMNS - 1  # the column that says when a client was seen to have gone
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
ONE = np.ones((1, 1), dtype=np.int32)
LENGTH = np.array([["length"]], dtype=np.object_)


class Live:
    """A request that runs."""

    def __init__(self, request: Any) -> None:  # noqa: ANN401  a type of Triton's stub
        values = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.sender = request.get_response_sender()
        self.row = int(values["seed"].ravel()[0]) % ROWS
        self.max_tokens = int(values["max_tokens"].ravel()[0])
        self.is_asked = "min_tokens" in values
        # What comes depends on the token before alone: an answer can be continued by another server.
        self.first = max(0, int(values["input_ids"].ravel()[-1]) - FIRST_WORD + 1)
        self.num_sent = 0


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Start the thread that makes the steps."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._step_s = float(parameters["step_ms"]["string_value"]) / 1000
        self._request_s = float(parameters["request_ms"]["string_value"]) / 1000
        path = parameters["emissions"]["string_value"]
        self._emitted = np.memmap(path, dtype=np.float64, mode="r+", shape=(ROWS, COLUMNS))
        self._condition = threading.Condition()
        self._live: list[Live] = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests."""
        with self._condition:
            self._live += [Live(request) for request in requests]
            self._condition.notify()

    def finalize(self) -> None:
        """Stop the thread."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._condition:
                while not self._live and not self._is_closing:
                    self._condition.wait()
                    due = time.monotonic()
                if self._is_closing:
                    return
                live = list(self._live)
            over = {id(each) for each in live if self._step(each)}
            due = max(due + self._step_s + self._request_s * len(live), time.monotonic())
            while (left_s := due - time.monotonic()) > 0:
                asked = [each for each in live if each.is_asked and id(each) not in over]
                over |= {id(each) for each in asked if self._has_left(each)}
                time.sleep(min(left_s, POLL_S) if asked else left_s)
            with self._condition:
                self._live = [each for each in self._live if id(each) not in over]

    def _step(self, live: Live) -> bool:
        """Send a token; return whether it was the last."""
        number = live.num_sent
        live.num_sent += 1
        is_last = live.num_sent == live.max_tokens
        token = np.array([[[FIRST_WORD + (live.first + number) % NUM_WORDS]]], dtype=np.int32)
        tensors = [pb_utils.Tensor("output_ids", token), pb_utils.Tensor("sequence_length", ONE)]
        if is_last:
            tensors.append(pb_utils.Tensor("finish_reason", LENGTH))
        self._emitted[live.row, number] = time.monotonic()
        live.sender.send(pb_utils.InferenceResponse(tensors), flags=FINAL if is_last else 0)
        return is_last

    def _has_left(self, live: Live) -> bool:
        if not live.sender.is_cancelled():
            return False
        self._emitted[live.row, LEFT] = time.monotonic()
        live.sender.send(flags=FINAL)
        return True
