from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt import detect

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_processor_is_named_with_its_instruction_sets() -> None:
    cpuinfo = "processor\t: 0\nmodel name\t: Example 9000\nflags\t\t: fpu avx2 fma f16c avx512f avx512bw\n"
    assert detect.cpu_model(cpuinfo) == "Example 9000"
    assert detect.isa(cpuinfo) == ("avx2", "fma", "f16c")


def test_avx512_counts_with_all_its_usual_subsets_and_amx_by_its_type() -> None:
    cpuinfo = "flags : avx2 avx512f avx512bw avx512vl avx512dq avx512_bf16 amx_bf16 amx_tile"
    assert detect.isa(cpuinfo) == ("avx2", "avx512", "avx512_bf16", "amx_bf16")


def test_a_foreign_cpuinfo_gives_nothing_rather_than_an_error() -> None:
    assert detect.cpu_model("CPU part: 0xd0c") is None
    assert detect.isa("Features: asimd") == ()


def test_memory_without_cgroups_is_the_machines(tmp_path: Path) -> None:
    assert detect.memory_within_cgroup(8 * GIB, 6 * GIB, tmp_path) == (8 * GIB, 6 * GIB)


def test_a_version_2_limit_cuts_memory_and_counts_page_cache_as_available(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/work/job\n")
    put(tmp_path, "sys/fs/cgroup/work/job/memory.max", f"{4 * GIB}\n")
    put(tmp_path, "sys/fs/cgroup/work/job/memory.current", f"{3 * GIB}\n")
    put(tmp_path, "sys/fs/cgroup/work/job/memory.stat", f"anon 5\ninactive_file {GIB}\n")
    assert detect.memory_within_cgroup(8 * GIB, 6 * GIB, tmp_path) == (4 * GIB, 2 * GIB)


def test_the_tightest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/work/job\n")
    put(tmp_path, "sys/fs/cgroup/work/job/memory.max", "max\n")
    put(tmp_path, "sys/fs/cgroup/work/memory.max", f"{2 * GIB}\n")
    assert detect.memory_within_cgroup(8 * GIB, 6 * GIB, tmp_path) == (2 * GIB, 2 * GIB)


def test_a_version_1_limit_cuts_memory(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "4:memory:/job\n2:cpu,cpuacct:/job\n")
    put(tmp_path, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", f"{3 * GIB}")
    put(tmp_path, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", f"{2 * GIB}")
    assert detect.memory_within_cgroup(8 * GIB, 6 * GIB, tmp_path) == (3 * GIB, GIB)


def test_inside_a_container_the_visible_top_is_our_own_group(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "4:memory:/docker/0123\n")
    put(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{GIB}")
    assert detect.memory_within_cgroup(8 * GIB, 6 * GIB, tmp_path) == (GIB, GIB)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"sys/fs/cgroup/job/cpu.max": "max 100000"}, 8),
        ({"sys/fs/cgroup/job/cpu.max": "250000 100000"}, 2),
        ({"sys/fs/cgroup/job/cpu.max": "50000 100000"}, 1),
    ],
)
def test_a_cpu_quota_cuts_the_usable_cores_but_never_to_none(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    put(tmp_path, "proc/self/cgroup", "0::/job\n")
    for name, text in files.items():
        put(tmp_path, name, text)
    assert detect.usable_cores(8, tmp_path) == expected


def test_a_version_1_quota_of_minus_one_is_no_quota(tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", "2:cpu,cpuacct:/job\n")
    put(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1")
    put(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000")
    assert detect.usable_cores(8, tmp_path) == 8
    put(tmp_path, "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "300000")
    assert detect.usable_cores(8, tmp_path) == 3


def test_free_disk_space_is_asked_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert detect.disk_free_bytes(tmp_path / "builds" / "not" / "there") > 0


def test_this_machine_is_described_within_its_own_bounds(tmp_path: Path) -> None:
    machine = detect.machine(tmp_path)
    assert 0 < machine.memory_available_bytes <= machine.memory_total_bytes
    assert machine.num_usable_cores >= 1
