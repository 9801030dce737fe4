"""A workload: conversations by number, the same for the same seed, and what is written down about it."""

from __future__ import annotations

import hashlib
import json
import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from scalellm_trt.bench.run import WorkloadNote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.bench.question import Conversation

NUM_NOTED = 256
NUM_DIGESTED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Tokens of a conversation's first prompt and of the answer to it, as asked for."""

    isl: int
    osl: int


class Workload(Protocol):
    """Conversations without end.

    `salt` is another one for each cell of a run: lengths depend on the number alone, so that targets are asked for the
    same work, texts on the salt too, so that no cell finds in a KV cache what another one left there.
    """

    @property
    def name(self) -> str:
        """Return it as on the command line, with its settings."""
        ...

    @property
    def seed(self) -> int:
        """Return the seed of everything drawn."""
        ...

    @property
    def sources(self) -> Mapping[str, str]:
        """Return digests of what texts are made of."""
        ...

    def shape(self, number: int) -> Shape:
        """Return the lengths of a conversation's first turn, without making its text."""
        ...

    def conversation(self, number: int, salt: int) -> Conversation:
        """Return a conversation."""
        ...


def random_of(*what: object) -> random.Random:
    """Return a source of random numbers that depends on `what` alone, on every machine."""
    return random.Random(hashlib.sha256(json.dumps(what).encode()).digest())


def note(workload: Workload) -> WorkloadNote:
    """Describe a workload; the digest covers its settings, its sources and the first conversations that it makes."""
    shapes = [workload.shape(number) for number in range(NUM_NOTED)]
    digest = hashlib.sha256()
    digest.update(json.dumps([workload.name, workload.seed, dict(workload.sources)]).encode())
    digest.update(json.dumps([[each.isl, each.osl] for each in shapes]).encode())
    for number in range(NUM_DIGESTED):
        turns = workload.conversation(number, 0).turns
        digest.update(json.dumps([[turn.messages, turn.max_tokens] for turn in turns]).encode())
    return WorkloadNote(
        name=workload.name,
        seed=workload.seed,
        isl_p50=round(statistics.median(each.isl for each in shapes)),
        isl_max=max(each.isl for each in shapes),
        osl_p50=round(statistics.median(each.osl for each in shapes)),
        digest=digest.hexdigest(),
    )
