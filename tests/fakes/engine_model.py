"""Stands for Triton's C++ `tensorrtllm` backend: its tensors, its habits, and tokens that count upwards.

A python model, for the real tritonserver and for the fake backend of unit tests. One thread steps all live requests
together, a token each a step. The next token is the last one + 1; sampled it is the last one + 1 + seed % 7, and a
sequence of a request has the seed of the one before + 1. What it does as the real one, because others have stumbled
over it:

- a stream's response holds the new tokens only, and the last response holds tokens together with the final flag;
- the end token is not delivered: the answer ends with a response of no tokens (unless `delivers_end_token` is true);
- every rejection is INTERNAL: prompt too long, queue full, a stop request without an id;
- `stop` ends the live request of the same id and is answered by one empty final response, also for an unknown id;
- cancellation is polled; why a sequence ended is not said.

Parameters of config.pbtxt (beside those of the real backend, which are read where they matter here): `contract`,
`step_ms`, `engine_max_input_len`, `engine_max_seq_len`, `engine_vocab_size`, `delivers_end_token`, `ignores_stops`: how
many stop requests are lost, as one that overtakes its victim is.
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

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
TOKENS_PER_BLOCK = 32
NAMES = {
    "0.13": {"min_tokens": "min_length", "seed": "random_seed"},
    "1.x": {"min_tokens": "min_tokens", "seed": "seed"},
}


class RejectedError(Exception):
    """What the real backend answers with INTERNAL."""


class Row:
    """One sequence of a request."""

    def __init__(self, last: int, stride: int) -> None:
        self.last, self.stride = last, stride
        self.made: list[int] = []
        self.num_sent = 0
        self.is_over = False


class Live:
    """A request that runs or waits."""

    def __init__(self, request: Any, contract: str, limits: Mapping[str, int]) -> None:
        self.request_id: str = request.request_id()
        self.sender = request.get_response_sender()
        self.outputs: set[str] = set(request.requested_output_names())
        self._inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.is_stop = bool(self._value("stop", False))
        if self.is_stop:
            return
        names = NAMES[contract]
        prompt = self._inputs["input_ids"].ravel().tolist()
        self.prompt_len = int(self._value("input_lengths", 0))
        self.max_tokens = int(self._value("request_output_len", 0))
        if self.prompt_len != len(prompt):
            raise RejectedError(f"input_lengths {self.prompt_len} does not match input_ids of {len(prompt)} tokens")
        if not 1 <= self.prompt_len <= limits["max_input_len"]:
            raise RejectedError(
                f"Prompt length ({self.prompt_len}) exceeds maximum input length ({limits['max_input_len']})"
            )
        if self.max_tokens < 1 or self.prompt_len + self.max_tokens > limits["max_seq_len"]:
            raise RejectedError(f"prompt + request_output_len exceeds max_seq_len ({limits['max_seq_len']})")
        self.vocab_size = limits["vocab_size"]
        self.min_tokens = int(self._value(names["min_tokens"], 0))
        self.end_id = int(self._value("end_id", -1))
        self.is_stream = bool(self._value("streaming", False))
        self.has_log_probs = bool(self._value("return_log_probs", False))
        self.has_perf_metrics = bool(self._value("return_perf_metrics", False))
        self.stop_words = self._words("stop_words_list")
        self.bad_words = self._words("bad_words_list")
        bias = self._inputs.get("embedding_bias")
        self.favourite = int(bias.ravel().argmax()) if bias is not None and bias.max() >= 100 else None
        count = int(self._value("num_return_sequences", 1))
        self.sequences = [Row(prompt[-1], self._stride(names["seed"], index)) for index in range(count)]

    def step(self) -> bool:
        """Make a token of each sequence and send what is due; return whether the request is over."""
        for sequence in self.sequences:
            if not sequence.is_over:
                self._advance(sequence)
        is_over = all(sequence.is_over for sequence in self.sequences)
        for index, sequence in enumerate(self.sequences):
            is_last = is_over and index == len(self.sequences) - 1
            if (self.is_stream and (sequence.num_sent < len(sequence.made) or is_last)) or (
                is_over and not self.is_stream
            ):
                self._send(index, sequence, is_last=is_last)
        return is_over

    def end(self) -> None:
        """End early, as after a cancel."""
        self._send(0, Row(0, 0), is_last=True)

    def _advance(self, sequence: Row) -> None:
        token = self._next(sequence)
        sequence.last = token
        if token == self.end_id and len(sequence.made) >= self.min_tokens:
            sequence.is_over = True
            if self.delivers_end_token:
                sequence.made.append(token)
            return
        sequence.made.append(token)
        ends = any(sequence.made[-len(word) :] == word for word in self.stop_words)
        sequence.is_over = ends or len(sequence.made) == self.max_tokens

    delivers_end_token = False

    def _next(self, sequence: Row) -> int:
        if self.favourite is not None:
            return self.favourite
        token = (sequence.last + sequence.stride) % self.vocab_size
        is_early = token == self.end_id and len(sequence.made) < self.min_tokens
        while is_early or any([*sequence.made, token][-len(word) :] == word for word in self.bad_words):
            token, is_early = (token + 1) % self.vocab_size, False
        return token

    def _send(self, index: int, sequence: Row, *, is_last: bool) -> None:
        new = sequence.made[sequence.num_sent :]
        sequence.num_sent = len(sequence.made)
        tensors = {
            "output_ids": np.array([[new]], dtype=np.int32).reshape(1, 1, len(new)),
            "sequence_length": np.array([[len(new)]], dtype=np.int32),
        }
        if self.has_log_probs:
            tensors["output_log_probs"] = np.full((1, 1, len(new)), -0.5, dtype=np.float32)
        if self.has_perf_metrics:  # as if every prompt had been there before, its last token left out
            tensors["kv_cache_reused_blocks"] = np.array([[(self.prompt_len - 1) // TOKENS_PER_BLOCK]], dtype=np.int32)
        if len(self.sequences) > 1:
            tensors["sequence_index"] = np.array([[index]], dtype=np.int32)
        wanted = [pb_utils.Tensor(name, array) for name, array in tensors.items() if name in self.outputs]
        if {"output_ids", "sequence_length"} - self.outputs:
            reject(self.sender, "output_ids and sequence_length must be among the requested outputs", flags=FINAL)
            return
        self.sender.send(pb_utils.InferenceResponse(wanted), flags=FINAL if is_last else 0)

    def _stride(self, seed_name: str, index: int) -> int:
        is_greedy = "runtime_top_k" in self._inputs and int(self._value("runtime_top_k", 0)) == 1
        if is_greedy or not {"runtime_top_k", "runtime_top_p"} & self._inputs.keys():
            return 1
        return 1 + (int(self._value(seed_name, 0)) + index) % 7

    def _value(self, name: str, default: float) -> Any:
        return self._inputs[name].ravel()[0] if name in self._inputs else default

    def _words(self, name: str) -> list[list[int]]:
        if name not in self._inputs:
            return []
        ids, ends = self._inputs[name].reshape(2, -1).tolist()
        found, start = [], 0
        for end in [end for end in ends if end >= 0]:
            if end <= start:
                raise RejectedError(f"{name}: ends must be strictly increasing")
            found.append(ids[start:end])
            start = end
        return found


class TritonPythonModel:
    """What the python backend calls."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Read the limits and start the engine's thread."""
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._contract = parameters.get("contract", "1.x")
        self._step_s = float(parameters.get("step_ms", "5")) / 1000
        self._limits = {
            name: int(parameters.get(f"engine_{name}", default))
            for name, default in (("max_input_len", "4096"), ("max_seq_len", "4096"), ("vocab_size", "32000"))
        }
        self._max_batch_size = int(config["max_batch_size"])
        policy = config.get("dynamic_batching", {}).get("default_queue_policy", {})
        self._max_queue_size = int(policy.get("max_queue_size", 0))
        self._num_stops_to_ignore = int(parameters.get("ignores_stops", "0"))
        Live.delivers_end_token = parameters.get("delivers_end_token", "false") == "true"
        self.events: list[str] = []
        self._condition = threading.Condition()
        self._live: list[Live] = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="fake engine", daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests; the engine's thread answers."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                live = Live(request, self._contract, self._limits)
                if live.is_stop:
                    self._stop(live)
                else:
                    self._enqueue(live)
            except RejectedError as error:
                reject(sender, str(error), flags=FINAL)

    def finalize(self) -> None:
        """Stop the thread."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join()

    def _enqueue(self, live: Live) -> None:
        with self._condition:
            room = self._max_batch_size + self._max_queue_size
            if self._max_queue_size and len(self._live) >= room:
                raise RejectedError("Maximum queue size reached, please try again later")
            if live.request_id in [other.request_id for other in self._live]:
                raise RejectedError(f"request id {live.request_id} is in use: a stop would hit the wrong request")
            self._live.append(live)
            self._condition.notify()

    def _stop(self, stop: Live) -> None:
        if not stop.request_id:
            raise RejectedError("Trying to stop a request but request ID is not provided")
        with self._condition:
            if self._num_stops_to_ignore:
                self._num_stops_to_ignore -= 1
            else:
                for victim in [live for live in self._live if live.request_id == stop.request_id]:
                    self._end(victim, "stopped")
        stop.sender.send(flags=FINAL)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._live and not self._is_closing:
                    self._condition.wait()
                if self._is_closing:
                    return
                for live in self._live[: self._max_batch_size]:
                    if live.sender.is_cancelled():
                        self._end(live, "cancelled")
                    elif live.step():
                        self._leave(live, "done")
            time.sleep(self._step_s)

    def _end(self, live: Live, how: str) -> None:
        live.end()
        self._leave(live, how)

    def _leave(self, live: Live, how: str) -> None:
        self._live = [other for other in self._live if other is not live]
        num_tokens = max(len(sequence.made) for sequence in live.sequences)
        self.events.append(f"{how} after {num_tokens} tokens")
        print(f"fake engine: {live.request_id} {self.events[-1]}", flush=True)


def reject(sender: Any, message: str, *, flags: int) -> None:
    """Answer as the real backend answers whatever it does not like."""
    error = pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL)
    sender.send(pb_utils.InferenceResponse(error=error), flags=flags)
