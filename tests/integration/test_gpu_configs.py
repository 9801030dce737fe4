"""Every GPU recipe's models, read by the real tritonserver: it stops at what only a GPU image has, and nowhere else."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt import pipeline, recipe
from scalellm_trt.backends import llmapi_models, tensorrt_llm_models
from scalellm_trt.pipeline import Workspace
from scalellm_trt.triton import binary, repository
from scalellm_trt.triton.server_command import command
from tests.fakes.engine_models import contract_of, gpu_plan, write_engine
from tests.integration.test_triton_server import options_for

if TYPE_CHECKING:
    from scalellm_trt.artefacts.types import Engine, TritonModel
    from scalellm_trt.plan import Plan

pytestmark = pytest.mark.integration

RECIPES = sorted(
    path
    for path in (Path(__file__).parents[2] / "recipes").glob("*.yaml")
    if recipe.load(path).recipe.backend != "openvino"
)
LOADED = re.compile(r"successfully loaded '([^']+)'")
FAILED = re.compile(r"failed to load '([^']+)' version 1: (.*)")
NO_LIBRARY = "unable to find backend library for backend 'tensorrtllm'"
NO_MODULE = "No module named 'tensorrt_llm'"


def made_plans() -> list[Plan]:
    """Return a plan for each shape that a service can have."""
    return [
        gpu_plan(name="one"),
        gpu_plan(name="three", services=3),
        gpu_plan(name="old", toolchain="tensorrt-llm-0.13.0"),
        gpu_plan(name="eight", tp_size=8),
        gpu_plan(name="maintained", backend="llmapi", toolchain="tensorrt-llm-1.3"),
    ]


def models_of(plan: Plan, engine: Engine) -> list[TritonModel]:
    if plan.backend == "llmapi":
        return llmapi_models.models(plan, engine.directory)
    return tensorrt_llm_models.triton_models(plan, engine, contract_of(plan))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TritonModel]]:
    """One repository with the models of every GPU recipe, and of each shape of a service."""
    project = tmp_path_factory.mktemp("gpu")
    workspace = Workspace(builds_dir=project / "builds", repository_dir=project / "triton_repo")
    root, models = workspace.repository_dir, []
    for plan in [*made_plans(), *(pipeline.explain(path, workspace) for path in RECIPES)]:
        engine = write_engine(project / "engines" / plan.name)
        mine = models_of(plan, engine)
        repository.publish(
            mine,
            service=plan.name,
            recipe=f"recipes/{plan.name}.yaml",
            owner_digest="x",
            engine_digest="y",
            root=root,
            state_dir=repository.state_dir_for(root, project / "state"),
        )
        models += mine
    return root, models


def test_every_config_parses_with_the_real_schema_and_holds_no_placeholder(
    published: tuple[Path, list[TritonModel]],
) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    root, models = published
    configs = sorted(root.glob("*/config.pbtxt"))
    assert len(configs) == len(models)
    for path in configs:
        text = path.read_text()
        assert "${" not in text
        config: Any = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert config.name == path.parent.name
        assert config.model_transaction_policy.decoupled
        assert config.max_batch_size >= 1
        if config.backend == "tensorrtllm":
            engine_dir = Path(config.parameters["gpt_model_path"].string_value)
            assert engine_dir.is_absolute()
            assert (engine_dir / "config.json").is_file()


def test_three_services_refer_to_one_engine_directory(published: tuple[Path, list[TritonModel]]) -> None:
    root, models = published
    by_engine: dict[str, list[str]] = {}
    for model in models:
        for path in model.repository_paths.values():
            by_engine.setdefault(path, []).append(model.name)
    assert by_engine["three-1_engine/1/engine"] == ["three-1_engine", "three-2_engine", "three-3_engine"]
    assert all((root / path / "rank0.engine").is_file() for path in by_engine)
    num_hosted = sum(model.settings.get("engine") == "llmapi" for model in models)
    assert len(list(root.glob("*/1/engine/rank0.engine"))) == len(by_engine) + num_hosted


def test_the_server_reads_each_configuration_up_to_the_missing_library_and_finds_nothing_else(
    published: tuple[Path, list[TritonModel]], tmp_path: Path
) -> None:
    root, models = published
    program, log = binary.find(), tmp_path / "server.log"
    argv = [*command(program, options_for(root)), "--exit-on-error=false"]
    with log.open("wb") as output:
        child = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, env=program.environment(os.environ))
    try:
        errors = wait_for_outcomes(log, {model.name for model in models})
    finally:
        child.terminate()
        child.wait(timeout=60)
    native = {model.name for model in models if model.backend == "tensorrtllm"}
    hosted = {model.name for model in models if model.settings.get("engine") == "llmapi"}
    assert errors.keys() == native | hosted
    assert all(NO_LIBRARY in errors[name] for name in native), errors
    assert all(NO_MODULE in errors[name] for name in hosted), errors
    loaded = set(LOADED.findall(log.read_text()))
    assert loaded == {model.name for model in models} - native - hosted
    assert "Poll failed" not in log.read_text()


def wait_for_outcomes(log: Path, names: set[str], timeout_s: float = 120) -> dict[str, str]:
    """Return the errors of the models that failed, once each of `names` has loaded or failed."""
    deadline = time.monotonic() + timeout_s
    while True:
        text = log.read_text(errors="replace")
        errors = dict(FAILED.findall(text))
        if names <= errors.keys() | set(LOADED.findall(text)):
            return errors
        assert time.monotonic() < deadline, f"neither loaded nor failed: {names - errors.keys()}\n{text[-3000:]}"
        time.sleep(0.2)
