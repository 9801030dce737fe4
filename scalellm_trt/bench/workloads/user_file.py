"""A user's own prompts: JSON lines, or a file in ShareGPT's format; conversations out, or where the file is wrong."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from scalellm_trt.bench.question import Conversation, Turn
from scalellm_trt.bench.workload import Shape, random_of
from scalellm_trt.bench.workloads import lengths
from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scalellm_trt.bench.question import Message
    from scalellm_trt.bench.tokens import ServedTokenizer
    from scalellm_trt.bench.workloads.lengths import Lengths

LINE_KEYS = ("prompt", "messages", "max_tokens")
MAX_PROBLEMS = 20
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


class UserFile:
    """Conversations in the order of the file, again from the beginning after its end.

    Texts are what the file says: the salt has no part in them, and a KV cache may find what it saw before.
    """

    def __init__(self, tokenizer: ServedTokenizer, path: Path, *, osl: Lengths, seed: int, first_only: bool) -> None:
        """Read the file; `osl` is asked for where it does not say how long an answer is.

        Raises:
            RecipeError: it cannot be read, or lines are wrong: all of them, up to 20.
        """
        self._tokenizer, self._osl = tokenizer, osl
        self.name = f"file:{path.name}{'?turns=first' if first_only else ''}"
        self.seed = seed
        try:
            content = path.read_bytes()
            text = content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError([Problem(key="--workload", file=path, message=f"cannot be read: {error}")]) from error
        reading = _Reading(path, tokenizer)
        found = list(reading.share_gpt(text) if text.lstrip().startswith("[") else reading.lines(text))
        if not found and not reading.problems:
            reading.problems.append(Problem(file=path, message="holds no prompt"))
        if reading.problems:
            raise RecipeError(reading.problems[:MAX_PROBLEMS])
        self._conversations = [each[:1] for each in found] if first_only else found
        self.sources: Mapping[str, str] = {"tokenizer": tokenizer.digest, "file": hashlib.sha256(content).hexdigest()}

    def shape(self, number: int) -> Shape:
        """See `Workload`."""
        first = self.conversation(number, 0).turns[0]
        isl = len(self._tokenizer.encode(self._tokenizer.render(first.messages)))
        return Shape(isl=isl, osl=first.max_tokens)

    def conversation(self, number: int, salt: int) -> Conversation:
        """See `Workload`."""
        drawing = random_of(self.seed, "lengths", number)
        turns = self._conversations[number % len(self._conversations)]
        return Conversation(
            turns=tuple(
                Turn(messages=messages, max_tokens=lengths.draw(self._osl, drawing) if osl is None else osl)
                for messages, osl in turns
            )
        )


Turns = list[tuple[tuple["Message", ...], int | None]]
"""Messages that are new in each turn, and tokens of its answer where the file says them."""


class _Reading:
    """Reads a file and collects what is wrong with it."""

    def __init__(self, path: Path, tokenizer: ServedTokenizer) -> None:
        self._path, self._tokenizer = path, tokenizer
        self.problems: list[Problem] = []

    def lines(self, text: str) -> Iterator[Turns]:
        """Yield what JSON lines hold: `prompt` or `messages`, and maybe `max_tokens`."""
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:
                self._note(number, None, f"not JSON: {error}")
                continue
            if turns := self._line(number, fields):
                yield turns

    def share_gpt(self, text: str) -> Iterator[Turns]:
        """Yield what a list of `{"conversations": [{"from", "value"}, …]}` holds; an answer's tokens are its length."""
        try:
            entries = json.loads(text)
        except ValueError as error:
            self._note(getattr(error, "lineno", None), None, f"not JSON: {error}")
            return
        for index, entry in enumerate(entries):
            said = entry.get("conversations") if isinstance(entry, dict) else None
            if not isinstance(said, list):
                self._note(None, f"[{index}].conversations", "must be a list of {from, value}")
            elif turns := self._conversation(index, said):
                yield turns

    def _line(self, number: int, fields: Any) -> Turns | None:  # noqa: ANN401  a stranger's JSON
        if not isinstance(fields, dict) or ("prompt" in fields) == ("messages" in fields):
            self._note(number, None, "must be an object with either prompt or messages")
            return None
        for key in fields.keys() - set(LINE_KEYS):
            self._note(number, key, f"no such key; allowed: {', '.join(LINE_KEYS)}")
        count = fields.get("max_tokens")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            self._note(number, "max_tokens", f"must be a whole number of 1 or more, found {count!r}")
        given = fields.get("messages", [{"role": "user", "content": fields.get("prompt")}])
        if not isinstance(given, list) or not given:
            self._note(number, "messages", "must be a list of {role, content}")
            return None
        messages = []
        for index, message in enumerate(given):
            role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
            if not isinstance(role, str) or not isinstance(content, str) or not content:
                key = "prompt" if "prompt" in fields else f"messages[{index}]"
                self._note(number, key, "must be text" if key == "prompt" else "must have role and content, both text")
                return None
            messages.append((role, content))
        return [(tuple(messages), count)]

    def _conversation(self, index: int, said: list[Any]) -> Turns | None:
        turns: Turns = []
        waiting: list[Message] = []
        for place, each in enumerate(said):
            speaker, value = (each.get("from"), each.get("value")) if isinstance(each, dict) else (None, None)
            if speaker not in _ROLES or not isinstance(value, str):
                key = f"[{index}].conversations[{place}]"
                self._note(None, key, f"must have from ({', '.join(_ROLES)}) and value, a text; found {each!r:.80}")
                return None
            if _ROLES[speaker] != "assistant":
                waiting.append((_ROLES[speaker], value))
            elif waiting:
                turns.append((tuple(waiting), max(1, len(self._tokenizer.plain(value)))))
                waiting = []
        return turns or None

    def _note(self, line: int | None, key: str | None, message: str) -> None:
        self.problems.append(Problem(file=self._path, line=line, key=key, message=message))
