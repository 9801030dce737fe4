"""How a server is started: the argv of each mode is golden, and what cannot be served together is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalellm_trt.errors import UnsupportedError
from scalellm_trt.triton import launch
from scalellm_trt.triton.binary import ServerBinary
from scalellm_trt.triton.published_engines import PublishedEngine
from scalellm_trt.triton.server_command import ServerOptions, command

GOLDENS = Path(__file__).parents[2] / "goldens"
IMAGE = ServerBinary(executable=Path("/opt/tritonserver/bin/tritonserver"), origin="path")
OPTIONS = ServerOptions(repository=Path("/models"), shm_prefix="scalellm_1_", exit_timeout_s=30)


def engine(name: str, world_size: int = 1, hosted_by: str = "tensorrtllm") -> PublishedEngine:
    return PublishedEngine(
        model=name,
        service=name,
        hosted_by=hosted_by,  # type: ignore[arg-type]
        world_size=world_size,
        repository_paths={},
    )


def planned(*engines: PublishedEngine, wants_orchestrator: bool = False) -> launch.Launch:
    mode = launch.choose_mode(engines, wants_orchestrator=wants_orchestrator)
    return launch.plan(IMAGE, OPTIONS, engines, mode, num_gpus=2)


def as_text(made: launch.Launch) -> str:
    return "".join(f"{line}\n" for line in [*(f"{k}={v}" for k, v in sorted(made.env.items())), *made.argv])


def test_one_engine_on_one_card_is_a_plain_server() -> None:
    made = planned(engine("a_engine"))
    assert made.mode == "plain"
    assert list(made.argv) == command(IMAGE, OPTIONS)
    assert made.env == {}


@pytest.mark.parametrize("hosted_by", ["tensorrtllm", "llmapi"])
def test_services_that_share_a_card_load_one_after_the_other(hosted_by: str) -> None:
    made = planned(*(engine(f"a-{number}_engine", hosted_by=hosted_by) for number in (1, 2, 3)))
    assert made.mode == "plain"
    assert "--model-load-thread-count=1" in made.argv
    assert "--model-load-thread-count=1" not in planned(engine("a_engine", hosted_by=hosted_by)).argv


def test_an_engine_over_two_cards_is_the_golden_mpirun_command() -> None:
    made = planned(engine("a_engine", world_size=2))
    assert made.mode == "leader"
    assert as_text(made) == (GOLDENS / "tritonserver_leader.txt").read_text()


def test_an_orchestrator_is_the_golden_command() -> None:
    made = planned(engine("a_engine", world_size=2), engine("b_engine"), wants_orchestrator=True)
    assert made.mode == "orchestrator"
    assert as_text(made) == (GOLDENS / "tritonserver_orchestrator.txt").read_text()


def test_an_orchestrator_is_not_needed_where_no_engine_is_native() -> None:
    assert planned(engine("a", hosted_by="llmapi"), wants_orchestrator=True).mode == "plain"


@pytest.mark.parametrize("other", [2, 1])
def test_two_engines_cannot_share_the_ranks_of_a_leader_mode_server(other: int) -> None:
    with pytest.raises(UnsupportedError) as caught:
        planned(engine("a_engine", world_size=2), engine("b_engine", world_size=other))
    assert "a_engine (2 ranks), b_engine" in str(caught.value)
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value)
    assert ("serve --orchestrator" in str(caught.value)) == (other == 1)


def test_two_engines_over_several_cards_are_refused_by_name_in_an_orchestrator_too() -> None:
    with pytest.raises(UnsupportedError) as caught:
        planned(engine("a_engine", world_size=2), engine("b_engine", world_size=2), wants_orchestrator=True)
    assert "a_engine (2 ranks), b_engine (2 ranks): each takes the first cards" in str(caught.value)
    assert "--orchestrator" not in str(caught.value)


def test_the_ranks_have_shared_memory_of_their_own_that_one_prefix_finds() -> None:
    argv = planned(engine("a_engine", world_size=4)).argv
    prefixes = [argument.split("=")[-1] for argument in argv if "shm-region-prefix-name" in argument]
    assert len(set(prefixes)) == 4
    assert all(prefix.startswith(OPTIONS.shm_prefix) for prefix in prefixes)
    assert sum("--load-model=a_engine" in argument for argument in argv) == 3
