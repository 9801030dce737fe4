"""The text of one YAML file in, a tree of values with line numbers out; what a recipe does not need is refused.

Refused are anchors and aliases (they can expand without bound), tags (they can name Python objects), several documents,
deep nesting, duplicate keys, and words whose value depends on the YAML version.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.recipe.plain_scalar import Ambiguity, resolve
from scalellm_trt.recipe.tree import Leaf, Place, Refused, Section, Sequence, dotted, shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalellm_trt.recipe.tree import KeyPath, Node

MAX_DEPTH = 8
# Control characters, Unicode's line breaks, and halves of surrogate pairs, which cannot be printed or stored.
_ODD_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
EXTENDS_HINT = "Write the values out; recipes share them with `extends`."
RECIPE_HINT = "A recipe is `key: value` lines: name, model, hardware, …; recipes/cpu.yaml is an example."


def read(text: str, file: Path, whole_hint: str = RECIPE_HINT) -> tuple[Section, list[Problem]]:
    """Read `text`, the content of `file`; `whole_hint` says what such a file looks like.

    Returns:
        The tree, with a `Refused` node wherever a value could not be taken, and the problem of each.

    Raises:
        RecipeError: it is not YAML, not one mapping, or has structure that a recipe may not have.
    """
    try:
        problems = list(_structure_problems(text, file))
        root = None if problems else yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RecipeError([_syntax_problem(error, text, file)]) from None
    except (ValueError, OverflowError) as error:
        # PyYAML converts escapes such as "\UFFFFFFFF" and directive versions without checking them.
        message = f"is not valid YAML: {error}"
        raise RecipeError(
            [Problem(file=file, message=message, hint="Look for unusual escapes or directives.")]
        ) from None
    if problems:
        raise RecipeError(problems)
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError([_no_mapping(root, file, whole_hint)])
    return _TreeMaker(file).make(root)


def _structure_problems(text: str, file: Path) -> Iterator[Problem]:
    """Look at the parser's events, which need no recursion, before nodes are made from them."""
    depth = num_documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        num_documents += isinstance(event, yaml.DocumentStartEvent)
        if num_documents > 1:
            hint = "Put each document into a file of its own."
            yield Problem(file=file, line=line, message="a second document begins here", hint=hint)
            return
        yield from _event_problems(event, file, line)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            hint = "No key is deeper than three levels; check the indentation and the brackets."
            yield Problem(file=file, line=line, message=f"is nested more than {MAX_DEPTH} levels deep", hint=hint)
            return


def _event_problems(event: yaml.Event, file: Path, line: int) -> Iterator[Problem]:
    anchor = getattr(event, "anchor", None)
    if isinstance(event, yaml.AliasEvent):
        yield Problem(
            file=file, line=line, message=f"alias {shown('*' + str(anchor))} is not allowed", hint=EXTENDS_HINT
        )
    elif anchor is not None:
        yield Problem(
            file=file, line=line, message=f"anchor {shown('&' + str(anchor))} is not allowed", hint=EXTENDS_HINT
        )
    tag = getattr(event, "tag", None)
    if tag is not None:
        hint = "Remove the tag; only plain values are read here."
        yield Problem(file=file, line=line, message=f"tag {shown(str(tag))} is not allowed", hint=hint)


def _syntax_problem(error: yaml.YAMLError, text: str, file: Path) -> Problem:
    if isinstance(error, yaml.reader.ReaderError):
        message = f"character {text[error.position]!r} is not allowed in YAML"
        return Problem(
            file=file,
            line=text.count("\n", 0, error.position) + 1,
            message=message,
            hint="Remove it; editors often hide such characters.",
        )
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = None if mark is None else mark.line + 1
    what = str(getattr(error, "problem", None) or error)
    if "'\\t'" in what:
        return Problem(file=file, line=line, message="a tab stands where YAML needs spaces", hint="Indent with spaces.")
    context = getattr(error, "context", None)
    message = f"is not valid YAML: {what}" + (f" {context}" if context else "")
    return Problem(file=file, line=line, message=message, hint="Check indentation, colons and quotes near this line.")


def _no_mapping(root: yaml.Node | None, file: Path, hint: str) -> Problem:
    if root is None or root.value == "":
        return Problem(file=file, message="is empty", hint=hint)
    found = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
    return Problem(file=file, line=root.start_mark.line + 1, message=f"holds {found} instead of keys", hint=hint)


class _TreeMaker:
    """Makes the tree of one file and collects the problems met on the way."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._problems: list[Problem] = []

    def make(self, root: yaml.MappingNode) -> tuple[Section, list[Problem]]:
        return self._section(root, self._place(root), ()), self._problems

    def _node(self, node: yaml.Node, place: Place, path: KeyPath) -> Node:
        if isinstance(node, yaml.MappingNode):
            return self._section(node, place, path)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place, path)
        items = [self._node(item, self._place(item), (*path, str(number))) for number, item in enumerate(node.value)]
        return Sequence(place=place, items=tuple(items))

    def _section(self, node: yaml.MappingNode, place: Place, path: KeyPath) -> Section:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key_place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_place, path, "a key must be a single word", "Write `key: value`.")
                continue
            name = str(key_node.value)
            key_path = (*path, name)
            if name in entries:
                first = entries[name].place.line
                self._complain(key_place, key_path, f"is written twice, first in line {first}", "Remove one of them.")
                continue
            entries[name] = self._node(value_node, key_place, key_path)
        return Section(place=place, entries=entries)

    def _scalar(self, node: yaml.ScalarNode, place: Place, path: KeyPath) -> Leaf | Refused:
        text = str(node.value)
        if odd := _ODD_CHARACTER.search(text):
            hint = "Write plain text in one line; escapes for control characters and surrogates are not needed."
            return self._complain(place, path, f"{shown(text)} holds the character {odd[0]!r}", hint)
        # Quoted and block scalars have a style; only unquoted words are open to interpretation.
        value = text if node.style else resolve(text, node.tag)
        if isinstance(value, Ambiguity):
            return self._complain(place, path, value.message, value.hint)
        return Leaf(place=place, value=value)

    def _complain(self, place: Place, path: KeyPath, message: str, hint: str) -> Refused:
        self._problems.append(
            Problem(file=place.file, line=place.line, key=dotted(path) or None, message=message, hint=hint)
        )
        return Refused(place=place)

    def _place(self, node: yaml.Node) -> Place:
        return Place(file=self._file, line=node.start_mark.line + 1)
