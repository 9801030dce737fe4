"""Whatever stands in the file: a recipe, or a RecipeError whose text can be printed. Nothing else may come out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.recipe import load
from scalellm_trt.recipe.keys import known_keys

NAMES = sorted({path[-1] for path in known_keys()} | {"extends", "lora", "<<", "*a", "&a a", "!x a", "? a", "'a", "[a"})
SCALARS = st.one_of(
    st.sampled_from(
        ["1", "0", "010", "1e3", "yes", "true", "null", "", "~", "[1]", "{}", "{a: 1}", "*a", "&a 1", "!!int x"]
    ),
    st.sampled_from(
        ["cpu", "int4_awq", "./m", "hf:a/b", "r.yaml", ".", "a_engine", "'x", '"\\ud800"', '"\\UFFFFFFFF"', "|\n x"]
    ),
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
)
LINES = st.tuples(st.sampled_from(["", "", "  ", "    ", "\t"]), st.sampled_from(NAMES), SCALARS)
YAML_LIKE = st.lists(LINES, max_size=12).map(
    lambda lines: "".join(f"{pad}{name}: {value}\n" for pad, name, value in lines)
)
START = "name: a\nhardware: cpu\nmodel:\n  source: ./m\n"

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def load_anything(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        path.write_bytes(data)
        problems = problems_of(path)
    str(RecipeError(problems)).encode()
    assert all(problem.message and problem.hint for problem in problems)


def problems_of(path: Path) -> tuple[Problem, ...]:
    try:
        load(path)
    except RecipeError as error:
        return error.problems
    return ()


@quick
@given(st.binary(max_size=200))
@example(b"\xff\xfea\x00")
@example(b"%YAML 1.1\n%TAG ! !\n---\n")
def test_bytes_are_a_recipe_or_a_recipe_error(data: bytes) -> None:
    load_anything(data)


@quick
@given(st.text(max_size=200))
@example("%TAG !a! tag:%zz\n--- !a!b c")
@example("a: !<tag:yaml.org,2002:float> x")
@example('a: "\\x"')
@example("? ?\n: :")
def test_text_is_a_recipe_or_a_recipe_error(text: str) -> None:
    load_anything(text.encode(errors="surrogatepass"))


@quick
@given(YAML_LIKE)
def test_lines_of_a_recipe_in_any_order_are_a_recipe_or_a_recipe_error(text: str) -> None:
    load_anything(text.encode(errors="surrogatepass"))


@quick
@given(YAML_LIKE)
def test_any_lines_after_a_good_start_are_a_recipe_or_a_recipe_error(text: str) -> None:
    load_anything((START + text).encode(errors="surrogatepass"))
