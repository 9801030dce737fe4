"""The error tree, and the value that says where a problem is and what to do about it.

```
ScaleLLMError              exit code
├── RecipeError                 2   the recipe, or the command's own arguments, are wrong
├── UnsupportedError            3   this card, format or engine cannot do it, or it does not fit
├── ToolchainError              4   a program or library is missing or has the wrong version
├── StageError                  5   a build stage started and failed
├── ArtefactError               6   an artefact is missing, stale or corrupt
├── ServerNotReadyError         7   tritonserver did not come up or does not answer
└── ThresholdMissedError        8   a quality gate, SLO or regression limit was missed
```

Exit code 1 is left for our own bugs, 130 for an interrupt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: where, what was found, what is allowed, what to do.

    Attributes:
        message: what was found and why it cannot be, one sentence.
        key: dotted recipe key or option name, such as `quantization.kv_cache_dtype`.
        file: the file it stands in, as the user wrote the path.
        line: 1-based line in `file`.
        hint: what is allowed and the next step, one or two sentences.
    """

    message: str
    key: str | None = None
    file: Path | None = None
    line: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        """Render as `file:line: key: message` with the hint on a line of its own."""
        place = "" if self.file is None else f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        key = "" if self.key is None else f"{self.key}: "
        hint = "" if self.hint is None else f"\n  {self.hint}"
        return f"{place}{key}{self.message}{hint}"


class ScaleLLMError(Exception):
    """Base of every error that a user may see; `exit_code` ends the process."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the message and the next step apart, so that `--json` can show both."""
        super().__init__(message if hint is None else f"{message}\n  {hint}")
        self.message = message
        self.hint = hint


class ProblemsError(ScaleLLMError):
    """An error made of several problems, all of which are reported at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take every problem found, in the order in which a reader meets them."""
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class RecipeError(ProblemsError):
    """The recipe or a command's arguments are wrong."""

    exit_code = 2


class UnsupportedError(ProblemsError):
    """The plan does not fit, or this hardware, format or engine cannot do what was asked."""

    exit_code = 3


class ToolchainError(ScaleLLMError):
    """A program or library that a stage needs is missing or has the wrong version."""

    exit_code = 4


class StageError(ScaleLLMError):
    """A build stage started and failed."""

    exit_code = 5


class ArtefactError(ScaleLLMError):
    """An artefact is missing, stale or corrupt."""

    exit_code = 6


class ServerNotReadyError(ScaleLLMError):
    """tritonserver did not come up, or does not answer."""

    exit_code = 7


class ThresholdMissedError(ScaleLLMError):
    """A quality gate, SLO or regression limit was missed."""

    exit_code = 8
