"""What is asked: a conversation of one or more turns, and the question that a turn becomes once it is due."""

from __future__ import annotations

from dataclasses import dataclass

Message = tuple[str, str]
"""Role and content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """New messages of a conversation, of which the last is the user's, and the longest answer."""

    messages: tuple[Message, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns that follow each other: each carries all that was said before, the server's own answers included."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request's content, in every form that a target may take.

    Attributes:
        messages: for a chat.
        text: the same in the model's chat template.
        ids: the same as tokens.
    """

    messages: tuple[Message, ...]
    text: str
    ids: tuple[int, ...]
    max_tokens: int
