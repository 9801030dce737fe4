from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from scalellm_trt.cli import repo
from scalellm_trt.errors import ArtefactError, RecipeError
from scalellm_trt.triton import repository
from tests.fakes.engine_models import gpu_plan, models_of, write_engine
from tests.fakes.triton_models import make_engine, make_model


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """Stand in a project with the service `chat` in its second version."""
    monkeypatch.chdir(tmp_path)
    root = Path("triton_repo")
    for version in ("1", "2"):
        repository.publish(
            [make_model("chat", engine=make_engine(tmp_path / "engines" / version, version), version=version)],
            service="chat",
            recipe="recipes/chat.yaml",
            owner_digest=version,
            engine_digest=version * 64,
            root=root,
            state_dir=repository.state_dir_for(root, Path("builds/.cache/repository")),
        )
    app = typer.Typer()
    repo.register(app)
    return app


def run(app: typer.Typer, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["repo", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_ls_shows_the_service_and_its_recipe(app: typer.Typer) -> None:
    output = run(app, "ls")
    assert "chat" in output
    assert "recipes/chat.yaml" in output
    assert "problem" not in output


def test_ls_as_json_is_for_machines(app: typer.Typer) -> None:
    body = json.loads(run(app, "ls", "--json"))
    assert body["problems"] == []
    (service,) = body["services"]
    assert service["models"]["chat"]["inputs"] == ["text_input", "max_tokens"]
    assert service["previous"]["engine_digest"] == "1" * 64


def test_ls_tells_what_is_wrong(app: typer.Typer) -> None:
    Path("triton_repo/chat/1/service.json").unlink()
    assert "problem: chat/1/service.json is missing" in run(app, "ls")


def test_ls_without_a_repository_says_how_to_make_one(app: typer.Typer) -> None:
    assert "scalellm-trt build" in run(app, "ls", "--repository", "elsewhere")


def test_rollback_returns_to_the_version_before(app: typer.Typer) -> None:
    assert "is again what was built at" in run(app, "rollback", "chat")
    assert Path("triton_repo/chat/1/engine/config.json").read_text() == "1"
    assert json.loads(run(app, "rollback", "chat", "--json"))["service"]["engine_digest"] == "2" * 64


def test_mount_names_engines_where_the_server_will_see_them(app: typer.Typer, tmp_path: Path) -> None:
    repository.publish(
        models_of(gpu_plan(), write_engine(tmp_path / "trt")),
        service="llama",
        recipe="recipes/llama.yaml",
        owner_digest="x",
        engine_digest="y",
        root=Path("triton_repo"),
        state_dir=repository.state_dir_for(Path("triton_repo"), Path("builds/.cache/repository")),
    )
    assert "llama_engine: engines are named below /models" in run(app, "mount", "/models")
    assert '"/models/llama_engine/1/engine"' in Path("triton_repo/llama_engine/config.pbtxt").read_text()
    assert json.loads(run(app, "mount", "/models", "--json")) == {"path": "/models", "changed": []}
    assert "problem" not in run(app, "ls")
    with pytest.raises(RecipeError, match="models is relative"):
        run(app, "mount", "models")


def test_rm_removes_and_says_how_to_get_it_back(app: typer.Typer) -> None:
    assert "scalellm-trt build recipes/chat.yaml" in run(app, "rm", "chat")
    assert not Path("triton_repo/chat").exists()


def test_rm_of_an_unknown_service_is_our_error(app: typer.Typer) -> None:
    with pytest.raises(ArtefactError, match="Services here: chat"):
        run(app, "rm", "nope")
