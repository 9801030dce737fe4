"""What a load generator saw of each request, and JSON lines of it: raw, so that every figure can be made again.

All times are seconds by one monotonic clock of the run, from its beginning.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import TextIO

ErrorClass = Literal[
    "refused", "not_found", "wrong_model", "bad_request", "unauthorized", "rate_limited", "server_error", "tls",
    "garbage", "connection_lost", "timeout",
]  # fmt: skip
"""refused: nobody listens or the name is unknown. garbage: an answer that is not in the protocol's form.
connection_lost: it ended in the middle. timeout: not done within the time that a request has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request.

    Attributes:
        cell: index of the cell of the run that it belongs to (`run.Cell`).
        index: of the request within its cell.
        request_id: sent as X-Request-ID, or as the id of a Triton request.
        conversation: which conversation it is a turn of; None outside of conversations.
        turn: 0 for the first turn.
        scheduled_s: when it was due; latency counts from here. Equals `sent_s` in a closed loop.
        sent_s: when it was sent.
        chunk_s: when each chunk with content came.
        chunk_tokens: tokens of each of these chunks, by the served tokenizer.
        end_s: when the answer had ended or had failed.
        isl: tokens of the prompt as it was sent, chat template included where it is known.
        osl: tokens of the answer by the served tokenizer; the sum of `chunk_tokens`.
        server_isl: the same by the server's usage; None where it says none.
        server_osl: the same.
        cached_tokens: prompt tokens that the server took from its KV cache; None where it says none.
        max_tokens: asked for.
        finish_reason: as the server said; None where it said none.
        error: why it failed; None for a request that did not.
        error_text: what was seen, one line.
        was_cancelled: the load generator gave it up: an interrupt or the end of the time of the run.
        is_warmup: sent before measuring began.
    """

    cell: int
    index: int
    request_id: str
    conversation: int | None = None
    turn: int = 0
    scheduled_s: float
    sent_s: float
    chunk_s: tuple[float, ...]
    chunk_tokens: tuple[int, ...]
    end_s: float
    isl: int
    osl: int
    server_isl: int | None = None
    server_osl: int | None = None
    cached_tokens: int | None = None
    max_tokens: int
    finish_reason: str | None = None
    error: ErrorClass | None = None
    error_text: str | None = None
    was_cancelled: bool = False
    is_warmup: bool = False

    @property
    def is_good(self) -> bool:
        """Whether it came to its end."""
        return self.error is None and not self.was_cancelled


def write(record: RequestRecord, file: TextIO) -> None:
    """Append one line."""
    file.write(json.dumps(dataclasses.asdict(record), separators=(",", ":")) + "\n")


def read(path: Path) -> Iterator[RequestRecord]:
    """Yield the records of a file; a last line that a kill cut off is left out.

    Raises:
        ArtefactError: a line is no record; says which.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield parse(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                message = f"{path}:{number}: not a record of a request: {error}. Run the benchmark again"
                raise ArtefactError(message) from error


def parse(fields: dict[str, Any]) -> RequestRecord:
    """Return the record that a line holds.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    if fields.get("error") not in (None, *get_args(ErrorClass)):
        message = f"error {fields['error']!r} is none of {', '.join(get_args(ErrorClass))}"
        raise ValueError(message)
    times = {"chunk_s": tuple(fields["chunk_s"]), "chunk_tokens": tuple(fields["chunk_tokens"])}
    if len(times["chunk_s"]) != len(times["chunk_tokens"]):
        raise ValueError("chunk_s and chunk_tokens differ in length")
    return RequestRecord(**{**fields, **times})


def write_all(records: Iterable[RequestRecord], path: Path) -> None:
    """Write a file of records."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            write(record, file)
