"""A repository of GPU engines is served from where it lies, in the mode that it needs, and measured."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from scalellm_trt.errors import ArtefactError, ToolchainError
from scalellm_trt.triton import launch, measured, published_engines, repository, repository_check, server, serving
from scalellm_trt.triton.binary import ServerBinary
from scalellm_trt.triton.server_command import ServerOptions
from tests.fakes.engine_models import gpu_plan, models_of, write_engine
from tests.fakes.processes import has_ended
from tests.unit.triton.test_server import options_for

TRITON = ServerBinary(executable=Path("/opt/tritonserver/bin/tritonserver"), origin="path")


def publish(project: Path, **changes: object) -> tuple[Path, Path]:
    """Publish a plan with these changes; return the repository and its state directory."""
    engine_dir = project / "engine"
    engine = write_engine(engine_dir) if not engine_dir.exists() else write_engine(project / "another")
    plan = gpu_plan(**changes)
    root, state_dir = project / "triton_repo", project / "state"
    repository.publish(
        models_of(plan, engine),
        service=plan.name,
        recipe="recipes/x.yaml",
        owner_digest="x",
        engine_digest="y",
        root=root,
        state_dir=state_dir,
    )
    return root, state_dir


def prepare(root: Path, state_dir: Path) -> tuple[tuple[published_engines.PublishedEngine, ...], launch.Launch]:
    options = ServerOptions(repository=root, shm_prefix="x_")
    return serving.prepare(TRITON, options, state_dir=state_dir, wants_orchestrator=False)


def paths_in(root: Path) -> set[str]:
    return {
        line.split('"')[3]
        for path in root.glob("*/config.pbtxt")
        for line in path.read_text().splitlines()
        if 'key: "gpt_model_path"' in line
    }


@pytest.fixture
def mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which the two programs are."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("mpirun", "tritonserver"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return programs / "mpirun"


def test_three_services_are_found_as_engines_that_share_one_directory(tmp_path: Path) -> None:
    root, _ = publish(tmp_path, services=3)
    engines = published_engines.find(root)
    assert [engine.model for engine in engines] == ["llama-1_engine", "llama-2_engine", "llama-3_engine"]
    assert {engine.service for engine in engines} == {"llama"}
    assert paths_in(root) == {str(root / "llama-1_engine" / "1" / "engine")}
    assert (root / "llama-1_engine" / "1" / "engine" / "rank0.engine").is_file()
    assert not (root / "llama-2_engine" / "1" / "engine").exists()
    assert (root / "llama-3" / "1" / "engine" / "tokenizer.json").is_file()


def test_a_repository_that_moved_is_corrected_before_the_start_and_stays_sound(tmp_path: Path) -> None:
    publish(tmp_path / "before", services=2)
    shutil.move(tmp_path / "before" / "triton_repo", tmp_path / "after")
    root, state_dir = tmp_path / "after", tmp_path / "state"
    changed = repository.resolve_paths(root, state_dir)
    assert changed == ("llama-1_engine", "llama-2_engine")
    assert paths_in(root) == {str(root / "llama-1_engine" / "1" / "engine")}
    repository_check.check(root)
    assert repository.is_current(root, "llama", "x")
    assert repository.resolve_paths(root, state_dir) == ()


def test_a_repository_can_be_prepared_for_another_mount(tmp_path: Path) -> None:
    root, state_dir = publish(tmp_path)
    assert repository.resolve_paths(root, state_dir, seen_as=Path("/models")) == ("llama_engine",)
    assert paths_in(root) == {"/models/llama_engine/1/engine"}
    repository_check.check(root)


def test_a_kill_between_manifest_and_file_is_mended_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, state_dir = publish(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            repository.resolve_paths(root, state_dir, seen_as=Path("/models"))
    with pytest.raises(ArtefactError):
        repository_check.check(root)
    repository.resolve_paths(root, state_dir, seen_as=Path("/models"))
    repository_check.check(root)


def test_an_edited_config_is_still_told(tmp_path: Path) -> None:
    root, state_dir = publish(tmp_path)
    with (root / "llama_engine" / "config.pbtxt").open("a") as config:
        config.write("# mine\n")
    repository.resolve_paths(root, state_dir)
    with pytest.raises(ArtefactError, match=r"llama_engine/config\.pbtxt has"):
        repository_check.check(root)


def test_an_engine_over_two_cards_is_prepared_for_leader_mode(tmp_path: Path, mpirun: Path) -> None:
    engines, made = prepare(*publish(tmp_path, tp_size=2))
    assert engines[0].world_size == 2
    assert made.mode == "leader"
    mpirun.unlink()
    with pytest.raises(ToolchainError, match="mpirun is not on the PATH; leader mode"):
        prepare(tmp_path / "triton_repo", tmp_path / "state")


def test_what_the_log_says_is_kept_beside_the_plan_of_each_service(tmp_path: Path) -> None:
    root, _ = publish(tmp_path, services=2)
    engines = published_engines.find(root)
    log = tmp_path / "server.log"
    log.write_text(
        "".join(
            f"[TensorRT-LLM][INFO] Loaded engine size: {size} MiB\n x.cc:839] \"successfully loaded '{name}'\"\n"
            for size, name in ((10, "llama-1_engine"), (11, "llama-2_engine"), (12, "other"))
        )
    )
    assert serving.record(engines, log, tmp_path / "builds") == [tmp_path / "builds" / "llama" / "measured.json"]
    found = measured.read(tmp_path / "builds" / "llama" / "measured.json")
    assert {name: each.engine_bytes for name, each in found.items()} == {
        "llama-1_engine": 10 << 20,
        "llama-2_engine": 11 << 20,
    }
    log.write_text("nothing of interest\n")
    assert serving.record(engines, log, tmp_path / "other") == []


MPIRUN = """#!/usr/bin/env python3
import os, signal, subprocess, sys
ranks, words = [], []
for word in [*sys.argv[2:], ":"]:
    if word == ":":
        # As Open MPI: each rank in a process group of its own.
        ranks.append(subprocess.Popen(words[2:], preexec_fn=os.setpgrp))
        words = []
    else:
        words.append(word)
open(os.environ["RANKS_FILE"], "w").write(" ".join(str(rank.pid) for rank in ranks))
signal.signal(signal.SIGTERM, lambda *_: [rank.terminate() for rank in ranks])
sys.exit(max(abs(rank.wait()) for rank in ranks))
"""
RANK = """#!/usr/bin/env python3
import os, sys, time
fake = os.environ["FAKE_TRITONSERVER"]
if any(word.startswith("--load-model=") for word in sys.argv):
    time.sleep(60)  # ranks behind the first never return from loading, and open no port
words = [word for word in sys.argv[1:] if word != "--disable-auto-complete-config"]
os.execv(sys.executable, [sys.executable, fake, *words])
"""


def test_a_job_of_two_ranks_is_watched_by_its_first_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("mpirun", MPIRUN), ("rank", RANK)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(server, "KILL_GRACE_S", 0.2)
    monkeypatch.setenv("RANKS_FILE", str(tmp_path / "ranks"))
    monkeypatch.setenv("FAKE_TRITONSERVER", str(Path(__file__).parents[2] / "fakes" / "fake_tritonserver.py"))
    options = options_for(tmp_path / "repo", "stubborn")  # a rank that does not end when it is asked to
    binary = ServerBinary(executable=tmp_path / "rank", origin="path")
    engine = published_engines.PublishedEngine(
        model="a_engine", service="a", hosted_by="tensorrtllm", world_size=2, repository_paths={}
    )
    made = launch.plan(binary, options, [engine], "leader", num_gpus=0)
    with server.start(binary, options, log=tmp_path / "log", launch=made, verify=lambda root: None) as running:
        assert running.wait_ready(10).model_names == ("echo",)
        ranks = [int(pid) for pid in (tmp_path / "ranks").read_text().split()]
        assert len(ranks) == 2
        assert os.getpgid(ranks[1]) != running.pid
    assert all(has_ended(pid) for pid in ranks)
