"""What resolving a recipe collects on its way: problems at their places, and decisions with their reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from scalellm_trt.plan.types import Decision

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalellm_trt.errors import Problem


class ProblemAt(Protocol):
    """Makes a problem at the place where a dotted key stands in the recipe."""

    def __call__(self, key: str, message: str, hint: str | None = None, /) -> Problem:
        """Return the problem; nothing is raised."""
        ...


@dataclass(slots=True, kw_only=True)
class Notes:
    """Collected while a recipe is resolved; the only mutable value of this package."""

    problem_at: ProblemAt
    problems: list[Problem] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def refuse(self, key: str, message: str, hint: str | None = None) -> None:
        """Note what cannot be, at the place of `key`."""
        self.problems.append(self.problem_at(key, message, hint))

    def refuse_unknown(self, key: str, message: str, allowed: Iterable[str], nearest: str | None) -> None:
        """Note a name that is not known or not allowed, with those that are."""
        hint = f"Allowed here: {', '.join(allowed) or 'nothing'}."
        self.refuse(key, message, hint if nearest is None else f"{hint} Nearest: {nearest}.")

    def decide(self, key: str, value: object, reason: str) -> None:
        """Note what was chosen, and why."""
        self.decisions.append(Decision(field=key, value=str(value), reason=reason))

    def warn(self, key: str, value: object, reason: str) -> None:
        """Note what happens without being asked, or what nobody has confirmed."""
        self.decisions.append(Decision(field=key, value=str(value), reason=reason, is_warning=True))
