"""What the doctor says of a machine with a card, outside the toolchain's image and inside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from scalellm_trt.artefacts.types import Stamp
from scalellm_trt.backends import calibration_tools
from scalellm_trt.detect import nvidia
from scalellm_trt.doctor import Check, GpuSurroundings, Question, Surroundings, examine, exit_code
from scalellm_trt.doctor.containers import Containers
from scalellm_trt.doctor.gpu_task import GpuTask, for_hardware
from scalellm_trt.doctor.probe import Installation
from scalellm_trt.memory import MemoryBudget, MemoryItem
from scalellm_trt.recipe import Calibration
from tests.fakes import gpus, planning

GIB = planning.GIB
TASK = for_hardware("rtx4090", None)
IMAGE = TASK.gpu.image
NOTHING = Installation(
    has_triton=False,
    triton_release=None,
    backend_libraries=(),
    trtllm_build=None,
    tensorrt_llm=None,
    tensorrt=None,
    python="/usr/bin/python3",
    missing_modules=("tokenizers",),
    kernels={},
    kernels_problem=None,
    shm_bytes=64 << 20,
    memlock_bytes=8 << 20,
    stack_bytes=8 << 20,
)
IN_IMAGE = Installation(
    has_triton=True,
    triton_release="26.07",
    backend_libraries=("/opt/tritonserver/backends/tensorrtllm/libtriton_tensorrtllm.so",),
    trtllm_build="/opt/venv-tritonserver/bin/trtllm-build",
    tensorrt_llm="1.2.1",
    tensorrt="10.14.1.48.post1",
    python="/usr/bin/python3",
    missing_modules=(),
    kernels={"libtensorrt_llm.so": ("8.0", "8.6", "8.9", "9.0")},
    kernels_problem=None,
    shm_bytes=2 << 30,
    memlock_bytes=None,
    stack_bytes=64 << 20,
)
DOCKER = Containers(engine="docker", problem=None, has_nvidia=True, images={IMAGE: 30 * 10**9})


def cards(*hardware: str, **changes: str | int) -> tuple[nvidia.Gpu, ...]:
    fields = [gpus.card(name, index, **changes) for index, name in enumerate(hardware)]
    return nvidia.parse([", ".join(str(card[field]) for field in nvidia.FIELDS) for card in fields]).gpus


def around(installation: Installation = IN_IMAGE, containers: Containers = DOCKER, **changes: Any) -> Surroundings:
    """Return a machine with one RTX 4090; `changes` are of the machine or of what a GPU toolchain is judged by."""
    machine = {key: changes.pop(key) for key in list(changes) if hasattr(planning.MACHINE, key)}
    found = {"image": None, "has_hf_token": False, "stamps": {}} | changes
    return Surroundings(
        machine=dataclasses.replace(planning.MACHINE, **({"gpus": cards("rtx4090")} | machine)),
        installed={},
        tritonserver=None,
        tritonserver_problem=None,
        container_engine=containers.engine,
        ports={8000: None},
        repository=Path("triton_repo"),
        num_services=None,
        repository_problems=(),
        gpu=GpuSurroundings(containers=containers, installation=installation, **found),
    )


def ask(place: Surroundings, task: GpuTask = TASK) -> dict[str, Check]:
    found = examine(place, Question(recipe=None, task=task, has_host=False))
    assert exit_code(found) == (4 if any(check.status == "fail" for check in found) else 0)
    return {check.name: check for check in found}


def planned(place: str, num_bytes: int) -> GpuTask:
    """Return the task of a recipe whose greediest stage needs that much in a place."""
    item = MemoryItem(name="weights", num_bytes=num_bytes, formula="")
    budget = MemoryBudget(stage="serve", place=place, items=(item,), available_bytes=0)  # type: ignore[arg-type]
    plan = dataclasses.replace(planning.make(), budgets=(budget,))
    return dataclasses.replace(TASK, arguments="recipes/x.yaml", plan=plan)


def test_in_the_right_image_on_the_right_card_nothing_is_to_be_done() -> None:
    assert {name: check.fix for name, check in ask(around()).items() if check.status != "ok"} == {}


def test_on_the_host_the_image_is_asked_for_instead_of_what_is_in_it() -> None:
    found = ask(around(NOTHING))
    assert "trtllm-build" not in found
    assert (found["container engine"].status, found["nvidia container toolkit"].status) == ("ok", "ok")
    assert found["image"].status == "warn"
    assert found["image"].fix.endswith("`scalellm-trt doctor --hardware rtx4090 --container`.")


def test_an_image_that_is_not_here_tells_its_size_and_takes_its_place_on_the_disk() -> None:
    found = ask(around(NOTHING, dataclasses.replace(DOCKER, images={}), disk_free_bytes=10 * GIB))
    assert (
        found["image"].fix
        == f"The first build pulls it (14.2 GB); to do it now, with a progress bar: docker pull {IMAGE}"
    )
    assert found["disk for the build"].status == "fail"
    assert "13.2 GiB of image" in found["disk for the build"].needed


def test_another_image_of_the_same_versions_is_named() -> None:
    other = TASK.gpu.images[1]
    check = ask(around(NOTHING, dataclasses.replace(DOCKER, images={other: 1})))["image"]
    assert (check.status, other in check.found, IMAGE in check.fix) == ("warn", True, True)


@pytest.mark.parametrize(
    ("name", "containers", "words"),
    [
        ("container engine", dataclasses.replace(DOCKER, engine=None), "docs.docker.com"),
        ("container engine", dataclasses.replace(DOCKER, problem="permission denied"), "add yourself to its group"),
        ("nvidia container toolkit", dataclasses.replace(DOCKER, has_nvidia=False), "nvidia-ctk runtime configure"),
        (
            "nvidia container toolkit",
            dataclasses.replace(DOCKER, engine="podman", has_nvidia=False),
            "nvidia-ctk cdi generate",
        ),
    ],
)
def test_what_keeps_the_image_from_running_fails_with_a_command(name: str, containers: Containers, words: str) -> None:
    check = ask(around(NOTHING, containers))[name]
    assert check.status == "fail"
    assert words in check.fix


@pytest.mark.parametrize(
    ("name", "changes", "status", "words"),
    [
        ("C++ backend", {"backend_libraries": ()}, "fail", "26.06-trtllm-python-py3"),
        ("trtllm-build", {"trtllm_build": None}, "fail", IMAGE),
        ("tensorrt-llm", {"tensorrt_llm": "1.1.0"}, "fail", IMAGE),
        ("tensorrt-llm", {"tensorrt_llm": None}, "fail", IMAGE),
        ("tensorrt", {"tensorrt": "10.13.3.9"}, "fail", IMAGE),
        ("tensorrt-llm", {"tensorrt_llm": "1.2.1rc1"}, "fail", IMAGE),
        ("python modules", {"missing_modules": ("tokenizers",)}, "fail", "/usr/bin/python3 -m pip install tokenizers"),
        ("python modules", {"python": None}, "fail", IMAGE),
        (
            "compiled kernels",
            {"kernels": {}, "kernels_problem": "cuobjdump is not installed"},
            "warn",
            "cuda-cuobjdump",
        ),
        ("compiled kernels", {"kernels": {"libtensorrt_llm.so": ("8.0", "8.6")}}, "warn", "same generation"),
        ("compiled kernels", {"kernels": {"libtensorrt_llm.so": ("9.0",)}}, "fail", '--cuda_architectures "89-real"'),
        ("/dev/shm", {"shm_bytes": 64 << 20}, "fail", "--shm-size=2g"),
        ("ulimits", {"memlock_bytes": 8 << 20}, "warn", "--ulimit memlock=-1"),
        ("ulimits", {"stack_bytes": 8 << 20}, "warn", "--ulimit stack=67108864"),
    ],
)
def test_what_is_wrong_in_the_image_is_told_with_the_fix(
    name: str, changes: dict[str, Any], status: str, words: str
) -> None:
    check = ask(around(dataclasses.replace(IN_IMAGE, **changes)))[name]
    assert check.status == status
    assert words in check.fix


def test_a_t4_wants_its_own_toolchain_and_kernels_for_7_5() -> None:
    task = for_hardware("t4", None)
    assert task.toolchain.name == "tensorrt-llm-0.13.0"
    image = dataclasses.replace(IN_IMAGE, tensorrt_llm="0.13.0", tensorrt="10.4.0.26")
    found = ask(around(image, gpus=cards("t4")), task)
    assert (found["tensorrt-llm"].status, found["tensorrt"].status) == ("ok", "ok")
    assert found["compiled kernels"].status == "fail"
    assert '--cuda_architectures "75-real"' in found["compiled kernels"].fix
    assert "--branch v0.13.0" in found["compiled kernels"].fix


def test_a_machine_without_a_card_fails_once_and_says_what_works_there() -> None:
    found = ask(around(gpus=()))
    assert found["gpu"].status == "fail"
    assert "build --dry-run" in found["gpu"].fix
    assert "nvidia driver" not in found
    assert "device memory" not in found


def test_a_broken_driver_is_told_in_the_words_of_nvidia_smi() -> None:
    problem = "nvidia-smi: Failed to initialize NVML: Driver/library version mismatch"
    assert ask(around(gpus=(), gpu_problem=problem))["gpu"].found == problem


def test_a_card_of_another_kind_fails_and_the_way_to_plan_for_it_is_named() -> None:
    check = ask(around(gpus=cards("rtx3090")))["gpu"]
    assert check.status == "fail"
    assert "--hardware rtx3090" in check.fix


def test_a_card_of_the_same_compute_capability_works_with_other_figures() -> None:
    assert ask(around(gpus=cards("l4")))["gpu"].status == "warn"


def test_a_card_that_is_cut_into_instances_is_said() -> None:
    task = for_hardware("a100-80g", None)
    assert "MIG" in ask(around(gpus=cards("a100-80g", mig_mode_current="Enabled")), task)["gpu"].found


def test_a_model_over_two_cards_needs_both() -> None:
    task = dataclasses.replace(TASK, world_size=2)
    assert ask(around(), task)["gpu"].status == "fail"
    assert ask(around(gpus=cards("rtx4090", "rtx4090")), task)["gpu"].status == "ok"


@pytest.mark.parametrize(("version", "status"), [("590.44.01", "ok"), ("580.65.06", "ok"), ("575.57.08", "fail")])
def test_the_driver_is_judged_by_the_floor_of_the_toolchain(version: str, status: str) -> None:
    check = ask(around(gpus=cards("rtx4090", driver_version=version)))["nvidia driver"]
    assert check.status == status
    assert ("nvidia-driver-590" in check.fix) == (status == "fail")


def test_the_plan_is_held_against_what_the_card_has_free_and_a_desktop_is_named() -> None:
    task = planned("device", 22 * GIB)
    assert ask(around(), task)["device memory"].status == "ok"
    check = ask(around(gpus=cards("rtx4090", memory_free=20480, display_active="Enabled")), task)["device memory"]
    assert (check.status, check.found) == ("fail", "20.0 GiB free of 24.0 GiB")
    assert check.fix.startswith("2.0 GiB more are needed: end what `nvidia-smi` lists; a desktop takes")


def test_host_memory_that_others_hold_warns_and_memory_that_is_not_there_fails() -> None:
    assert ask(around(), planned("host", 22 * GIB))["host memory"].status == "warn"
    assert ask(around(), planned("host", 48 * GIB))["host memory"].status == "fail"
    assert ask(around(), planned("host", 8 * GIB))["host memory"].status == "ok"


def test_all_that_a_build_leaves_on_the_disk_counts() -> None:
    task = planned("disk", 60 * GIB)
    assert task.plan is not None
    assert ask(around(), task)["disk for the build"].status == "ok"
    twice = dataclasses.replace(task.plan, budgets=task.plan.budgets * 2)
    assert ask(around(), dataclasses.replace(task, plan=twice))["disk for the build"].status == "fail"


def test_a_gated_model_wants_a_token_and_the_page_of_its_licence_is_named() -> None:
    task = dataclasses.replace(TASK, model_source="hf:meta-llama/Llama-2-13b-chat-hf@main")
    check = ask(around(), task)["model access"]
    assert check.status == "fail"
    assert "https://huggingface.co/meta-llama/Llama-2-13b-chat-hf," in check.fix
    assert ask(around(has_hf_token=True), task)["model access"].status == "ok"
    assert "model access" not in ask(around(), dataclasses.replace(TASK, model_source="hf:Qwen/Qwen2.5-7B-Instruct"))


def test_what_calibrates_is_looked_for_where_the_build_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(calibration_tools.TOOLS, "no-such-library", "no_such_library")
    task = planned("device", GIB)
    assert task.plan is not None
    assert "calibration" not in ask(around(), task)
    quantization = dataclasses.replace(task.plan.quantization, weights="fp8", calibration=Calibration())
    task = dataclasses.replace(task, plan=dataclasses.replace(task.plan, quantization=quantization))
    check = ask(around(), task)["calibration"]
    assert (check.status, check.fix) == ("fail", "pip install 'scalellm-trt[quantize]'")
    assert "no-such-library is not installed" in check.found


def test_what_is_not_known_without_a_plan_says_how_it_becomes_known() -> None:
    assert ask(around())["host memory"].needed == "give a recipe to know"
    task = dataclasses.replace(TASK, arguments="recipes/x.yaml", model_source="hf:some/model")
    assert ask(around(), task)["host memory"].needed == "known after `scalellm-trt build recipes/x.yaml --until plan`"
    task = dataclasses.replace(task, plan_problem="parallel.tp_size: 3 ranks")
    found = ask(around(), task)
    assert found["device memory"].needed == "known once the recipe can be planned"
    assert found["disk for the build"].needed.startswith("artefacts (known once")


def test_a_recipe_that_cannot_be_planned_fails_with_the_reason() -> None:
    task = dataclasses.replace(TASK, arguments="recipes/x.yaml", plan_problem="does not fit: 30 GiB > 24 GiB")
    check = ask(around(), task)["plan"]
    assert (check.status, check.found) == ("fail", "does not fit: 30 GiB > 24 GiB")
    assert "scalellm-trt plan recipes/x.yaml" in check.fix


STAMP = Stamp(
    gpu_name="NVIDIA GeForce RTX 4090",
    compute_capability="8.9",
    tensorrt="10.14.1.48",
    tensorrt_llm="1.2.1",
    driver_floor="580",
    image=IMAGE,
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"compute_capability": "8.6", "gpu_name": "NVIDIA GeForce RTX 3090"}, "the card is NVIDIA GeForce RTX 4090"),
        # The kernels were chosen on that card: the same compute capability is not enough for `serve` either.
        ({"gpu_name": "NVIDIA L4"}, "the engine was built on NVIDIA L4 (8.9)"),
        ({"tensorrt": "10.13.3.9"}, "TensorRT here is 10.14.1.48.post1, the engine was built with 10.13.3.9"),
        ({"tensorrt_llm": "1.2.1rc1"}, "TensorRT-LLM here is 1.2.1, the engine was built with 1.2.1rc1"),
    ],
)
def test_a_published_engine_is_held_against_card_and_versions(changes: dict[str, str], words: str | None) -> None:
    check = ask(around(stamps={"chat": dataclasses.replace(STAMP, **changes)}))["engine chat"]
    assert check.status == ("ok" if words is None else "fail")
    assert words is None or words in check.found
    assert ("build RECIPE --force compile" in check.fix) == (words is not None)


def test_outside_the_image_a_published_engine_is_held_against_the_versions_of_the_toolchain() -> None:
    assert ask(around(NOTHING, stamps={"chat": STAMP}))["engine chat"].status == "ok"
    old = dataclasses.replace(STAMP, tensorrt_llm="1.1.0")
    check = ask(around(NOTHING, stamps={"chat": old}))["engine chat"]
    assert "TensorRT-LLM of tensorrt-llm-1.2.1 is 1.2.1, the engine was built with 1.1.0" in check.found
