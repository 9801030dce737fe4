from __future__ import annotations

import time
from pathlib import Path

import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.recipe.file_text import MAX_BYTES
from scalellm_trt.recipe.tree import Leaf, Place, Refused, Section, plain
from scalellm_trt.recipe.yaml_reader import MAX_DEPTH, read

FILE = Path("r.yaml")


def refusals(text: str) -> list[str]:
    """First lines of the problems with which reading ends."""
    with pytest.raises(RecipeError) as caught:
        read(text, FILE)
    return [str(problem).splitlines()[0] for problem in caught.value.problems]


def complaints(text: str) -> list[str]:
    """First lines of the problems of single values, after which reading goes on."""
    return [str(problem).splitlines()[0] for problem in read(text, FILE)[1]]


def test_values_keep_the_line_of_their_key() -> None:
    tree, problems = read("a: 1\nb:\n  c:\n    x\n  d: 'y'\n", FILE)
    assert problems == []
    section = tree.entries["b"]
    assert isinstance(section, Section)
    assert section.entries["c"] == Leaf(place=Place(file=FILE, line=3), value="x")
    assert section.entries["d"] == Leaf(place=Place(file=FILE, line=5), value="y")


def test_quoted_words_are_text_whatever_they_look_like() -> None:
    tree, problems = read("a: 'yes'\nb: \"010\"\nc: '1e3'\n", FILE)
    assert (plain(tree), problems) == ({"a": "yes", "b": "010", "c": "1e3"}, [])


def test_a_refused_value_is_reported_and_the_rest_is_read() -> None:
    tree, problems = read("a: 010\nb: 2\n", FILE)
    assert isinstance(tree.entries["a"], Refused)
    assert plain(tree) == {"b": 2}
    assert [(problem.key, problem.line) for problem in problems] == [("a", 1)]


def test_a_second_key_of_the_same_name_is_reported_with_the_line_of_the_first() -> None:
    tree, _ = read("a: 1\nb: 2\na: 3\n", FILE)
    assert plain(tree) == {"a": 1, "b": 2}
    assert complaints("a: 1\nb: 2\na: 3\n") == ["r.yaml:3: a: is written twice, first in line 1"]


def test_a_key_that_is_no_word_is_reported() -> None:
    assert complaints("a: 1\n? [x, y]\n: 2\n") == ["r.yaml:2: a key must be a single word"]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n...\n"])
def test_an_empty_file_is_called_empty(text: str) -> None:
    assert refusals(text) == ["r.yaml: is empty"]


@pytest.mark.parametrize(("text", "found"), [("- a\n- b\n", "a list"), ("hello", "a single value")])
def test_a_file_without_keys_is_refused(text: str, found: str) -> None:
    assert refusals(text) == [f"r.yaml:1: holds {found} instead of keys"]


def test_a_tab_as_indentation_is_called_a_tab() -> None:
    assert refusals("a:\n\tb: 1\n") == ["r.yaml:2: a tab stands where YAML needs spaces"]


def test_an_invisible_character_is_named_with_its_line() -> None:
    assert refusals("a: 1\nb: x\x07y\n") == ["r.yaml:2: character '\\x07' is not allowed in YAML"]


@pytest.mark.parametrize(
    ("text", "line"), [("a: [1, 2\nb: 3\n", 2), ("a: 'x\n", 2), ("a: 1\n  b: 2\n", 2), ("@a: 1", 1)]
)
def test_a_syntax_error_has_its_line(text: str, line: int) -> None:
    (refusal,) = refusals(text)
    assert refusal.startswith(f"r.yaml:{line}: is not valid YAML: ")


def test_every_anchor_alias_and_tag_is_refused_in_one_go() -> None:
    assert refusals("a: &x 1\nb: *x\nc: !!python/object/apply:os.system [ls]\nd: !mine 2\n") == [
        "r.yaml:1: anchor '&x' is not allowed",
        "r.yaml:2: alias '*x' is not allowed",
        "r.yaml:3: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed",
        "r.yaml:4: tag '!mine' is not allowed",
    ]


def test_an_alias_bomb_is_refused_at_its_first_anchor() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert refusals(bomb)[0] == "r.yaml:1: anchor '&a0' is not allowed"


def test_a_second_document_is_refused() -> None:
    assert refusals("a: 1\n---\nb: 2\n") == ["r.yaml:2: a second document begins here"]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
def test_deep_nesting_is_refused_soon_and_without_recursion(opening: str) -> None:
    text = opening * (MAX_BYTES // len(opening))
    began = time.process_time()
    assert refusals(text) == [f"r.yaml:1: is nested more than {MAX_DEPTH} levels deep"]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ['a: "\\UFFFFFFFF"', f"%YAML 1.{'9' * 5000}\n--- {{a: 1}}"])
def test_what_pyyaml_itself_trips_over_is_refused(text: str) -> None:
    (refusal,) = refusals(text)
    assert "is not valid YAML" in refusal


@pytest.mark.parametrize("escape", ["\\0", "\\e", "\\ud800", "\\L", "\\n"])
def test_a_character_that_no_value_needs_is_refused_and_printable_in_the_message(escape: str) -> None:
    (complaint,) = complaints(f'a: "x{escape}y"')
    assert "holds the character" in complaint
    assert complaint.isprintable()
