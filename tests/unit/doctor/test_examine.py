from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from scalellm_trt.doctor import Check, Question, Surroundings, examine, exit_code
from scalellm_trt.errors import ToolchainError
from tests.fakes.planning import GIB, MACHINE, loaded

INSTALLED = {
    "openvino": "2026.4.1",
    "numpy": "1.26.4",
    "gguf": "0.19.0",
    "tritonclient": "2.73.0",
    "torch": None,
    "transformers": None,
    "nvidia-modelopt": None,
}
HEALTHY = Surroundings(
    machine=MACHINE,
    installed=INSTALLED,
    tritonserver="/usr/bin/tritonserver (path)",
    tritonserver_problem=None,
    container_engine="docker",
    ports={8000: None, 8001: None, 8002: None},
    repository=Path("triton_repo"),
    num_services=1,
    repository_problems=(),
)
CPU_RECIPE = Question(recipe=loaded().recipe, task=None, has_host=False)
EVERYTHING = Question(recipe=None, task=None, has_host=True)


def check(name: str, around: Surroundings = HEALTHY, **sections: Any) -> Check:
    found = examine(around, Question(recipe=loaded(**sections).recipe, task=None, has_host=False))
    return next(point for point in found if point.name == name)


def on_machine(**changes: Any) -> Surroundings:
    return dataclasses.replace(HEALTHY, machine=dataclasses.replace(MACHINE, **changes))


def with_packages(**versions: str | None) -> Surroundings:
    changed = {name.replace("_", "-"): version for name, version in versions.items()}
    return dataclasses.replace(HEALTHY, installed={**INSTALLED, **changed})


def test_a_healthy_machine_fails_nothing_and_needs_no_fix_but_the_optional_extra() -> None:
    found = examine(HEALTHY, EVERYTHING)
    assert exit_code(found) == 0
    assert {point.name: point.fix for point in found if point.fix} == {
        "extra quantize": "For int4_awq: pip install 'scalellm-trt[quantize]'"
    }


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("platform", on_machine(architecture="aarch64")),
        ("platform", on_machine(system="Darwin")),
        ("python", on_machine(python_version="3.13.1")),
        ("python", on_machine(python_version="3.9.2")),
        ("libpython", on_machine(libpython=None)),
        ("glibc", on_machine(glibc="2.31")),
        ("glibc", on_machine(glibc=None)),
        ("numpy", with_packages(numpy="2.1.0")),
        ("openvino", with_packages(openvino="2025.2.0")),
        ("openvino", with_packages(openvino=None)),
        ("gguf", with_packages(gguf="0.9.0")),
        ("tritonclient", with_packages(tritonclient=None)),
    ],
)
def test_what_the_recipes_toolchain_lacks_fails_with_a_fix_and_exit_code_4(name: str, around: Surroundings) -> None:
    point = check(name, around)
    assert point.status == "fail"
    assert point.fix
    assert exit_code(examine(around, CPU_RECIPE)) == 4


def test_a_missing_libpython_names_the_packages_of_debian_and_fedora() -> None:
    fix = check("libpython", on_machine(libpython=None, python_version="3.12.4")).fix
    assert "apt-get install libpython3.12" in fix
    assert "dnf install python3.12-libs" in fix


def test_a_missing_tritonserver_fails_with_its_finders_words() -> None:
    problem = ToolchainError("tritonserver is nowhere", hint="Install it.")
    around = dataclasses.replace(HEALTHY, tritonserver=None, tritonserver_problem=problem)
    point = check("tritonserver", around)
    assert (point.status, point.found, point.fix) == ("fail", "tritonserver is nowhere", "Install it.")


@pytest.mark.parametrize(
    ("name", "around"),
    [
        ("processor", on_machine(isa=())),
        ("memory", on_machine(memory_total_bytes=GIB)),
        ("disk", on_machine(disk_free_bytes=GIB)),
        ("ports", dataclasses.replace(HEALTHY, ports={8000: "nginx, pid 7", 8001: None, 8002: None})),
    ],
)
def test_what_works_at_a_price_warns_and_fails_nothing(name: str, around: Surroundings) -> None:
    point = check(name, around)
    assert point.status == "warn"
    assert point.fix
    assert exit_code(examine(around, CPU_RECIPE)) == 0


def test_the_quantize_extra_is_needed_by_calibrated_recipes_only() -> None:
    assert check("extra quantize").status == "warn"
    awq = {"weights": "int4_awq", "group_size": 64}
    assert check("extra quantize", quantization=awq).status == "fail"
    complete = with_packages(torch="2.13.0+cpu", transformers="4.57.6", nvidia_modelopt="0.47.0")
    assert check("extra quantize", complete, quantization=awq).status == "ok"
    newer = with_packages(torch="2.13.0", transformers="5.1.0", nvidia_modelopt="0.47.0")
    assert check("extra quantize", newer, quantization=awq).found == "transformers 5.1.0"


def test_a_recipe_of_a_backend_without_toolchain_fails_and_the_others_are_not_judged() -> None:
    recipe = loaded(backend="tensorrt_llm").recipe
    found = examine(HEALTHY, Question(recipe=recipe, task=None, has_host=False))
    assert exit_code(found) == 4
    assert "openvino" not in {point.name for point in found}


def test_without_a_recipe_one_usable_backend_is_enough() -> None:
    other = Check(name="x", status="fail", found="", needed="", backend="tensorrt_llm")
    assert exit_code([*examine(HEALTHY, EVERYTHING), other]) == 0
    assert exit_code([*examine(with_packages(openvino=None), EVERYTHING), other]) == 4


def test_a_damaged_repository_fails_with_what_is_wrong() -> None:
    around = dataclasses.replace(HEALTHY, repository_problems=("a/config.pbtxt is missing",))
    assert check("repository", around).found == "triton_repo: a/config.pbtxt is missing"
    assert exit_code(examine(around, EVERYTHING)) == 4


@pytest.mark.parametrize(("num_services", "words"), [(None, "not there yet"), (0, "empty")])
def test_no_repository_is_no_failure(num_services: int | None, words: str) -> None:
    point = check("repository", dataclasses.replace(HEALTHY, num_services=num_services))
    assert point.status == "ok"
    assert words in point.found
