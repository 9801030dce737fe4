from __future__ import annotations

from pathlib import Path

import pytest

from scalellm_trt.doctor import about
from scalellm_trt.errors import RecipeError, UnsupportedError
from scalellm_trt.pipeline import Workspace
from tests.fakes import gpus

CPU = Path(__file__).parents[3] / "recipes" / "cpu.yaml"


def test_a_recipe_of_the_cpu_is_judged_alone_and_asks_for_no_card() -> None:
    question = about(CPU, None, None, Workspace())
    assert question.recipe is not None
    assert (question.recipe.backend, question.task, question.has_host) == ("openvino", None, False)


def test_a_class_of_cards_is_judged_by_the_named_toolchain() -> None:
    task = about(None, "rtx4090", "tensorrt-llm-1.1.0", Workspace()).task
    assert task is not None
    assert (task.gpu.tensorrt_llm, task.arguments) == ("1.1.0", "--hardware rtx4090 --toolchain tensorrt-llm-1.1.0")


def test_without_a_word_the_card_that_is_here_is_judged_beside_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in gpus.environment([gpus.card("l4")]).items():
        monkeypatch.setenv(name, value)
    question = about(None, None, None, Workspace())
    assert question.has_host
    assert question.task is not None
    assert question.task.hardware.name == "l4"


def test_without_a_card_the_host_alone_is_judged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert about(None, None, None, Workspace()).task is None


def test_an_unknown_class_of_cards_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnsupportedError, match="Nearest: rtx4090"):
        about(None, "rtx4900", None, Workspace())
    with pytest.raises(UnsupportedError, match="--toolchain: 'tensorrt-llm-9' is not known"):
        about(None, "rtx4090", "tensorrt-llm-9", Workspace())


@pytest.mark.parametrize("words", [(CPU, "t4", None), (CPU, None, "tensorrt-llm-1.1.0"), (None, None, "x")])
def test_words_that_contradict_each_other_are_refused(words: tuple[Path | None, str | None, str | None]) -> None:
    with pytest.raises(RecipeError):
        about(*words, Workspace())


def test_a_recipe_that_does_not_fit_still_tells_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(
        f"schema: 1\nname: large\nextends: {CPU.parent}/rtx4090.yaml\nquantization:\n  weights: full_prec\n"
        "  kv_cache_dtype: auto\n"
    )
    task = about(path, None, None, Workspace()).task
    assert task is not None
    assert task.plan_problem is not None
    assert "does not fit" in task.plan_problem
    assert (task.needed_bytes("device") or 0) > 24 << 30


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hardware: cpu", "hardware: rtx4080", "'rtx4080' is not a known class of hardware"),
        ("hardware: cpu", "hardware: rtx4090", "'openvino' does not run on rtx4090"),
        ("backend: openvino", "backend: tensorrt_llm", "'tensorrt_llm' does not run on cpu"),
    ],
)
def test_a_recipe_whose_card_is_wrong_is_refused_as_plan_refuses_it(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    body = "schema: 1\nname: wrong\nmodel:\n  source: hf:Qwen/Qwen2.5-7B-Instruct\nhardware: cpu\nbackend: openvino\n"
    path = tmp_path / "wrong.yaml"
    path.write_text(body.replace(old, new))
    with pytest.raises(UnsupportedError, match=words):
        about(path, None, None, Workspace())
