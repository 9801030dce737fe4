"""The maintained path: a Hugging Face checkpoint and the arguments of `LLM(...)`, no engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.artefacts.types import Checkpoint, Engine, LocalModel
from scalellm_trt.backends.base import Needs
from scalellm_trt.backends.llmapi import LlmApiBackend
from scalellm_trt.errors import ArtefactError
from scalellm_trt.runtime import settings
from tests.fakes import small_tokenizer
from tests.fakes.plans import tiny_plan
from tests.fakes.tiny_models import tiny_spec, write_model

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.plan import Plan


def llmapi_plan(**changes: Any) -> Plan:
    return tiny_plan(**{"backend": "llmapi", "toolchain": "tensorrt-llm-1.3", "hardware": "rtx4090", **changes})


def quiet(_activity: str, _share: float) -> None:
    """Take progress and show none."""


@pytest.fixture
def built(tmp_path: Path) -> tuple[Plan, Path]:
    """A plan, and what its two stages wrote."""
    model_dir = tmp_path / "model"
    write_model(model_dir)
    small_tokenizer.write(model_dir)
    plan = llmapi_plan(model=LocalModel(directory=model_dir, source="./model", revision="r", digest="d"))
    for stage in ("checkpoint", "engine"):
        (tmp_path / stage).mkdir()
    backend = LlmApiBackend()
    backend.quantize(plan, tmp_path / "checkpoint", quiet)
    checkpoint = Checkpoint(directory=tmp_path / "checkpoint", digest="c")
    assert backend.compile(plan, checkpoint, tmp_path / "engine", quiet) is None
    return plan, tmp_path


def test_what_is_published_holds_the_checkpoint_and_the_arguments(built: tuple[Plan, Path]) -> None:
    plan, directory = built
    names = {path.name for path in (directory / "engine").iterdir()}
    assert {"config.json", "model.yaml", "tokenizer.json"} <= names
    assert any(name.endswith(".safetensors") for name in names)
    weights = next((directory / "engine").glob("*.safetensors"))
    assert weights.stat().st_ino == (directory / "checkpoint" / weights.name).stat().st_ino
    arguments = json.loads((directory / "engine" / "model.yaml").read_text())
    assert arguments["kv_cache_config"]["max_gpu_total_bytes"] == plan.serving.kv_cache_bytes
    assert arguments["backend"] == "pytorch"


def test_its_models_are_text_models_that_hold_it(built: tuple[Plan, Path]) -> None:
    plan, directory = built
    backend = LlmApiBackend()
    [model] = backend.triton_models(plan, Engine(directory=directory / "engine", digest="e", kind="llm_api"))
    assert settings.from_json(dict(model.settings)).engine == "llmapi"
    assert backend.planned_models(plan, directory / "engine") == [model]


def test_a_damaged_checkpoint_is_not_published(built: tuple[Plan, Path]) -> None:
    plan, directory = built
    weights = next((directory / "checkpoint").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    (directory / "again").mkdir()
    with pytest.raises(ArtefactError):
        LlmApiBackend().compile(
            plan, Checkpoint(directory=directory / "checkpoint", digest="c"), directory / "again", quiet
        )


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"weights": "int8_wo"}, "quantization.weights"),
        ({"kv_cache_dtype": "int8"}, "quantization.kv_cache_dtype"),
        ({"spec": tiny_spec(eos_token_id=None)}, "model"),
    ],
)
def test_what_the_path_cannot_do_is_said_before_the_build(changes: dict[str, Any], key: str) -> None:
    assert [problem.key for problem in LlmApiBackend().check(llmapi_plan(**changes))] == [key]
    assert LlmApiBackend().check(llmapi_plan()) == []


def test_only_calibration_needs_more_than_the_base_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    calibrated = Needs(toolchain="tensorrt-llm-1.3", hardware="rtx4090", weights="fp8", is_calibrated=True)
    plain = Needs(toolchain="tensorrt-llm-1.3", hardware="rtx4090", weights="full_prec", is_calibrated=False)
    backend = LlmApiBackend()
    assert "nvidia-modelopt" in backend.missing(calibrated, "quantize", quiet)[0]
    assert backend.missing(calibrated, "compile", quiet) == backend.missing(plain, "quantize", quiet) == []
    assert backend.commands(llmapi_plan(), "compile", "a", "b") == []  # type: ignore[arg-type]
