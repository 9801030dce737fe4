"""What the runner and its client processes say to each other, pickled over the child's standard input and output.

Both ends are our own code: nothing that a server sent is ever unpickled, only carried as bytes.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from scalellm_trt.bench.question import Conversation, Message, Question
    from scalellm_trt.bench.targets.raw import Raw
    from scalellm_trt.bench.targets.target import Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """To a process at its start; `tokenizer` is where later turns of a conversation are rendered."""

    way: Way
    tokenizer: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A conversation to have.

    Attributes:
        first: its first question, ready to be sent.
        due_s: when, by the machine's monotonic clock; None for as soon as there is room.
    """

    index: int
    request_id: str
    conversation: Conversation
    first: Question
    due_s: float | None
    is_warmup: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Begin a part of a cell; jobs follow, then `NoMore`. `concurrency` None is an open loop."""

    concurrency: int | None
    timeout_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMore:
    """No job follows; what runs is finished, and what waits too unless it is to be dropped."""

    drops_waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Cancel what runs and forget what waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """From a process that can begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """From a process that cannot do what it should; the text is for a person."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question that has been answered or not; `messages` are those of the turn, with what went before."""

    job: int
    turn: int
    messages: tuple[Message, ...]
    max_tokens: int
    due_s: float
    raw: Raw
    is_last_turn: bool
    is_warmup: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The part of a cell is over; what the process used for it.

    Attributes:
        cpu_share: of one core.
        lags_s: how late timers came.
    """

    cpu_share: float
    lags_s: tuple[float, ...]


def send(file: BinaryIO, message: object) -> None:
    """Write a message."""
    pickle.dump(message, file, protocol=pickle.HIGHEST_PROTOCOL)
    file.flush()


def receive(file: BinaryIO) -> object | None:
    """Return the next message, None at the end."""
    try:
        return cast("object", pickle.load(file))
    except (EOFError, pickle.UnpicklingError, OSError, ValueError):
        return None
