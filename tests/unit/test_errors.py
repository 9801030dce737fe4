"""errors: each branch has its own exit code, and a problem says where it is."""

from __future__ import annotations

from pathlib import Path

from scalellm_trt import errors
from scalellm_trt.errors import Problem, RecipeError, ScaleLLMError


def _branches() -> list[type[ScaleLLMError]]:
    """Return the branches of the tree; the leaves that single modules hang on them share their exit codes."""
    return [branch for branch in vars(errors).values() if _is_branch(branch)]


def _is_branch(value: object) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, ScaleLLMError)
        and "exit_code" in vars(value)
        and value.exit_code != 1
    )


def test_every_branch_has_an_exit_code_of_its_own() -> None:
    codes = [branch.exit_code for branch in _branches()]
    assert sorted(codes) == [2, 3, 4, 5, 6, 7, 8]


def test_the_tree_drawn_in_the_docstring_is_the_tree() -> None:
    for branch in _branches():
        line = next(line for line in (errors.__doc__ or "").splitlines() if branch.__name__ in line)
        assert str(branch.exit_code) in line.split()


def test_a_problem_reads_file_line_key_message_then_hint() -> None:
    problem = Problem(message="'fp4' is unknown", key="a.b", file=Path("r.yaml"), line=14, hint="Allowed: auto.")
    assert str(problem) == "r.yaml:14: a.b: 'fp4' is unknown\n  Allowed: auto."


def test_an_error_of_several_problems_shows_all_of_them() -> None:
    error = RecipeError([Problem(message="first", key="a"), Problem(message="second", key="b")])
    assert str(error) == "a: first\nb: second"
