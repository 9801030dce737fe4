"""What pydantic found in, problems in a recipe's words out: file:line, key, found, expected, next step."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem
from scalellm_trt.recipe.keys import default_text, known_keys, names_below, schema_path
from scalellm_trt.recipe.schema import RESERVED_KEYS, Recipe
from scalellm_trt.recipe.tree import Leaf, Place, describe, dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pydantic import BaseModel

    from scalellm_trt.recipe.keys import Key
    from scalellm_trt.recipe.tree import KeyPath, Node

MAX_PROBLEMS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A kind of YAML file.

    Attributes:
        noun: what messages call it.
        model: describes its keys.
        more_keys: names at the top that are no part of the model.
        reserved: names at the top that later versions will define, with what they will be about.
    """

    noun: str
    model: type[BaseModel]
    more_keys: tuple[str, ...] = ()
    reserved: Mapping[str, str] = field(default_factory=dict)


RECIPE = Document(noun="a recipe", model=Recipe, more_keys=("extends",), reserved=RESERVED_KEYS)


def schema_problem(path: KeyPath, nodes: Mapping[KeyPath, Node], file: Path, document: Document = RECIPE) -> Problem:
    """Explain why the schema does not take what stands, or is missing, at `path`.

    Args:
        path: where the schema has an objection.
        nodes: every node of the file.
        file: the file itself, where keys are missing that stand nowhere.
        document: what kind of file it is.
    """
    is_name = path[-1] == "[key]"
    path = path[:-1] if is_name else path
    key = known_keys(document.model).get(schema_path(path[:-1] if is_name else path, document.model))
    node = nodes.get(path)
    if is_name and key is not None:
        message, hint = "is not a name for it", f"{dotted(key.path)} takes {key.allowed}."
    elif key is None:
        message, hint = _unknown(path, document)
    elif node is None:
        message, hint = "is missing", _how_to_write(key, document)
    else:
        message, hint = f"found {describe(node)}, expected {key.allowed}", _next_step(node, key)
    place = nearest_place(path, nodes)
    if place is None:
        return Problem(file=file, key=dotted(path), message=message, hint=hint)
    return Problem(file=place.file, line=place.line, key=dotted(path), message=message, hint=hint)


def nearest_place(path: KeyPath, nodes: Mapping[KeyPath, Node]) -> Place | None:
    """Return where `path`, or the nearest section around it, is written; None if none of them is."""
    for length in range(len(path), 0, -1):
        if path[:length] in nodes:
            return nodes[path[:length]].place
    return None


def _how_to_write(key: Key, document: Document) -> str:
    if key.is_section:
        return f"Write {key.path[-1]}: and below it {', '.join(names_below(key.path, document.model))}."
    return f"It is {key.description}. Allowed: {key.allowed}."


def _unknown(path: KeyPath, document: Document) -> tuple[str, str]:
    *above, name = path
    if not above and name in document.reserved:
        return f"is reserved for a later version: this one has no {document.reserved[name]}", "Remove it for now."
    siblings = names_below(schema_path(tuple(above), document.model), document.model)
    if not above:
        siblings += document.more_keys
    whole = dotted(path[:-1]) if above else document.noun
    return f"is not a key of {whole}", _did_you_mean(name, siblings, document)


def _did_you_mean(name: str, siblings: list[str], document: Document) -> str:
    keys = known_keys(document.model)
    elsewhere = [dotted(path) for path in keys if name in (path[-1], dotted(path)) and len(path) > 1]
    if len(elsewhere) in (1, 2):
        places = [path.rpartition(".")[0] for path in elsewhere]
        last = elsewhere[0].rpartition(".")[2]
        return f"It belongs into another place: write {last} below {' or '.join(places)}."
    if near := difflib.get_close_matches(name[:80], siblings, n=1):
        return f"Did you mean {near[0]}?"
    return f"Allowed here: {', '.join(siblings)}."


def _next_step(node: Node, key: Key) -> str:
    if isinstance(node, Leaf):
        text = node.value if isinstance(node.value, str) else None
        if text is not None and key.kind in ("integer", "number", "boolean"):
            return "Write it without quotes." if text.isdecimal() or text in ("true", "false") else _meaning(key)
        if text is None and key.kind == "string" and node.value is not None:
            return f"If text is meant, quote it: {shown(str(node.value))}."
        if text is not None and (near := difflib.get_close_matches(text[:80], key.choices, n=1)):
            return f"Nearest: {near[0]}."
        if text is not None and key.path == ("model", "source"):
            return _source_step(text)
    return _meaning(key)


def _source_step(text: str) -> str:
    scheme, colon, _ = text.partition(":")
    if colon and scheme in ("hf", "gguf", "pypi"):
        return f"After {scheme}: something is missing or misspelt."
    return f"Write hf:{text} for a repository of the hub, ./{text} for a directory beside the recipe."


def _meaning(key: Key) -> str:
    if key.is_required:
        return f"It is {key.description}."
    if key.is_section:
        return "Indent its keys below it, or remove it to get the defaults."
    return f"It means: {key.description}. Remove the line to get the default, {default_text(key)}."


def limited(problems: Iterable[Problem], files: list[Path]) -> list[Problem]:
    """Sort problems as a reader meets them, `files` first to last, and cut a list that nobody would read."""
    order = {file: index for index, file in enumerate(files)}
    unique = list(dict.fromkeys(problems))
    unique.sort(key=lambda problem: (order.get(problem.file, len(files)) if problem.file else -1, problem.line or 0))
    if len(unique) <= MAX_PROBLEMS:
        return unique
    rest = Problem(message=f"and {len(unique) - MAX_PROBLEMS} more problems", hint="Correct these first.")
    return [*unique[:MAX_PROBLEMS], rest]
