from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from scalellm_trt.bench.load import cell_plan, progress
from scalellm_trt.bench.load.cell_plan import Effort
from scalellm_trt.bench.load.progress import Work
from scalellm_trt.bench.load.schedule import due_times_s
from scalellm_trt.bench.run import Load
from scalellm_trt.bench.targets import target
from scalellm_trt.errors import RecipeError

ONE, FOUR = Load(mode="closed", concurrency=1), Load(mode="closed", concurrency=4)


def test_targets_take_turns_at_each_load_and_another_one_begins_each_time() -> None:
    cells = cell_plan.in_order(3, [[ONE, FOUR], [ONE]], 3)
    assert len(cells) == 3 * 3 * 3
    assert len({(cell.target, cell.workload, cell.load, cell.round) for cell in cells}) == len(cells)
    groups = [list(cells)[start : start + 3] for start in range(0, len(cells), 3)]
    assert all(len({(each.workload, each.load, each.round) for each in group}) == 1 for group in groups)
    firsts = [group[0].target for group in groups]
    assert {firsts.count(number) for number in range(3)} == {3}
    assert [group[0].target for group in groups[:3]] == [0, 1, 2]


def test_a_cells_number_of_requests_is_as_asked_or_follows_from_its_load() -> None:
    assert cell_plan.num_requests(Effort(num_requests=5), FOUR) == 5
    assert cell_plan.num_requests(Effort(), ONE) == 8
    assert cell_plan.num_requests(Effort(), Load(mode="closed", concurrency=64)) == 128
    assert cell_plan.num_requests(Effort(duration_s=3), FOUR) is None


@pytest.mark.parametrize(
    ("wanted", "concurrency", "cores", "found"),
    [(None, 64, 2, 1), (None, 256, 8, 4), (None, 256, 4, 2), (3, 64, 2, 3), (3, 2, 2, 2)],
)
def test_client_processes_leave_half_of_the_cores_to_others(
    wanted: int | None, concurrency: int, cores: int, found: int
) -> None:
    assert cell_plan.num_processes(wanted, Load(mode="closed", concurrency=concurrency), cores) == found


def test_streams_are_shared_out_evenly() -> None:
    assert cell_plan.shares(7, 3) == [3, 2, 2]


def test_a_constant_rate_is_due_at_equal_distances_until_count_or_time_is_over() -> None:
    assert list(due_times_s("constant", 4.0, 1, count=3, duration_s=None)) == [0.0, 0.25, 0.5]
    assert list(due_times_s("constant", 4.0, 1, count=None, duration_s=0.6)) == [0.0, 0.25, 0.5]


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_users_and_follow_the_seed() -> None:
    times = list(due_times_s("poisson", 10.0, 1, count=4000, duration_s=None))
    assert times == list(due_times_s("poisson", 10.0, 1, count=4000, duration_s=None))
    assert times != list(due_times_s("poisson", 10.0, 2, count=4000, duration_s=None))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.1, rel=0.05)
    # Exponential: standard deviation equals the mean.
    assert (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean, rel=0.08)


def test_the_time_left_is_that_of_the_same_cell_before_or_in_proportion() -> None:
    known, other = Work(kind=(0, 0, "1"), amount=10), Work(kind=(1, 0, "4"), amount=20)
    assert progress.eta_s([], [known]) is None
    assert progress.eta_s([(known, 5.0)], [known, other]) == pytest.approx(5.0 + 10.0)


def test_targets_are_read_as_they_are_written() -> None:
    ways = target.parse_all(
        [
            "gateway=http://127.0.0.1:2345?model=m&key_env=KEY&hardware=cpu",
            "plain=https://example.org/api/v3?api=completions&stream=off&ca=ca.pem",
            "tokens=grpc://127.0.0.1:8001/m",
            "text=grpc-text://host/m?force=off",
            "engine:builds/x/compile",
        ]
    )
    assert [(way.name, way.kind, way.url, way.model) for way in ways] == [
        ("gateway", "openai", "http://127.0.0.1:2345", "m"),
        ("plain", "openai", "https://example.org/api/v3", ""),
        ("tokens", "triton-tokens", "127.0.0.1:8001", "m"),
        ("text", "triton-text", "host:8001", "m"),
        ("engine", "in-process", "", ""),
    ]
    assert (ways[0].key_env, ways[0].hardware, ways[0].forces_length) == ("KEY", "cpu", True)
    assert (ways[1].api, ways[1].streams, ways[1].ca_file) == ("completions", False, Path("ca.pem"))
    assert not ways[3].forces_length
    assert ways[4].engine == Path("builds/x/compile")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x=ftp://host", "'ftp' is no way to ask"),
        ("x=http://host?modle=m", "option 'modle' is unknown"),
        ("x=http://user:secret@host", "no credentials"),
        ("x=http://host?api=images", "api=images is unknown"),
        ("x=http://host?stream=maybe", "must be on or off"),
        ("x=http://host:99999", "Port"),
        ("x=engine:", "names no directory"),
        ("x=http:", "needs a host"),
    ],
)
def test_a_wrong_target_is_refused_with_how_one_is_written(text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason) as caught:
        target.parse(text)
    assert "NAME=grpc://HOST:PORT/MODEL" in str(caught.value)


def test_two_targets_need_two_names() -> None:
    with pytest.raises(RecipeError, match="two targets are called a"):
        target.parse_all(["a=http://x", "a=http://y"])
