"""Messages in, the prompt that a chat model was trained on out, by the template beside its tokenizer.

A template comes with a model that a stranger made: it runs in a sandbox, and can neither reach Python's objects nor
change what it is given.
"""

from __future__ import annotations

import datetime
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from scalellm_trt.errors import ArtefactError, Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jinja2 import Template

    Message = Mapping[str, str]
    """`role` and `content`."""

CONFIG_NAME = "tokenizer_config.json"
TEMPLATE_NAME = "chat_template.jinja"
DEFAULT_NAME = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """A Jinja template and the special tokens that it may name.

    Attributes:
        source: the template's text.
        special_tokens: such as `bos_token` → `<s>`.
        path: where it was read, for messages.
    """

    source: str
    special_tokens: Mapping[str, str]
    path: Path

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """Return the prompt that makes the model answer `messages`.

        Raises:
            RecipeError: the template refuses these messages; in its own words.
            ArtefactError: the template itself is broken.
        """
        from jinja2 import TemplateError

        try:
            return _compiled(self.source).render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except _RefusedError as error:
            message = f"the model's chat template refuses the messages: {error}"
            raise RecipeError([Problem(message=message, file=self.path)]) from error
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            message = f"{self.path}: the chat template fails: {type(error).__name__}: {error}"
            raise ArtefactError(message, hint="Send the prompt as it is, with --raw.") from error


def load(directory: Path) -> ChatTemplate | None:
    """Read the template in a model's directory: `chat_template.jinja`, else the one in tokenizer_config.json.

    Returns:
        None where the model has none, as base models do.

    Raises:
        ArtefactError: tokenizer_config.json is damaged.
    """
    config = _read_config(directory / CONFIG_NAME)
    special_tokens = {
        name: token for name, value in config.items() if name.endswith("_token") and (token := _token(value))
    }
    path = directory / TEMPLATE_NAME
    if path.is_file():
        source: str | None = path.read_text(encoding="utf-8")
    else:
        path = directory / CONFIG_NAME
        source = _default_template(config.get("chat_template"))
    return None if source is None else ChatTemplate(source=source, special_tokens=special_tokens, path=path)


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    """Return the template, made once: making it takes longer than most prompts do."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


class _RefusedError(Exception):
    """A template called `raise_exception`."""


def _refuse(message: str) -> NoReturn:
    raise _RefusedError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().astimezone().strftime(format)


def _to_json(value: object, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML, which a tokenizer would see.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _read_config(path: Path) -> Mapping[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        message = f"{path}: cannot be read: {error}"
        raise ArtefactError(message, hint="Build the recipe again.") from error
    if not isinstance(config, dict):
        message = f"{path}: holds no object"
        raise ArtefactError(message, hint="Build the recipe again.")
    return config


def _token(value: object) -> str | None:
    """Return a special token's text, written plainly or as an object with its flags."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _default_template(value: object) -> str | None:
    """Return the template, or of several named ones the default."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get(DEFAULT_NAME)
    return value if isinstance(value, str) else None
