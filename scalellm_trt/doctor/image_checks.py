"""The toolchain against its row: on the host, whether its image can be used; inside the image, what is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.backends.gpu_machine import same_release
from scalellm_trt.doctor.probe import MODULES
from scalellm_trt.memory import format_gib

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scalellm_trt.doctor.checks import Check
    from scalellm_trt.doctor.containers import Containers
    from scalellm_trt.doctor.gpu_task import GpuTask
    from scalellm_trt.doctor.probe import Installation

MIN_SHM_BYTES = 1 << 30
MIN_STACK_BYTES = 64 << 20
GB = 10**9
_RUN_OPTIONS = "--shm-size=2g --ulimit memlock=-1 --ulimit stack=67108864"
_TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


def on_the_host(containers: Containers, task: GpuTask) -> Iterator[Check]:
    """Yield what a machine without the toolchain needs to run its image."""
    engine = _engine(containers, task)
    yield engine
    if engine.status == "ok":
        yield _toolkit(containers, task)
        yield _image(containers, task)


def inside(found: Installation, task: GpuTask) -> Iterator[Check]:
    """Yield what an image, or a machine with the toolchain, needs to build and serve."""
    gpu = task.gpu
    if gpu.backend_library is not None:
        yield _backend_library(found, task, gpu.backend_library)
    if gpu.has_compile:
        point = task.point("trtllm-build", "on the PATH")
        fix = f"Run inside {gpu.image}, or `source` the environment that TensorRT-LLM is installed in."
        yield point.ok(found.trtllm_build) if found.trtllm_build else point.fail("none", fix)
    yield _version(found.tensorrt_llm, "tensorrt-llm", gpu.tensorrt_llm, task)
    yield _version(found.tensorrt, "tensorrt", gpu.tensorrt, task)
    yield _python_modules(found, task)
    yield _kernels(found, task)
    yield _shared_memory(found, task)
    yield _ulimits(found, task)


def pull_bytes(containers: Containers, task: GpuTask) -> int:
    """Return what the image still takes from the network, and at least from the disk; 0 where it is here."""
    return 0 if containers.images or task.gpu.image_gb is None else int(task.gpu.image_gb * GB)


def _engine(containers: Containers, task: GpuTask) -> Check:
    point = task.point("container engine", "docker or podman, to run the toolchain's image")
    if containers.engine is None:
        return point.fail("none", "Install docker: https://docs.docker.com/engine/install")
    if containers.problem is None:
        return point.ok(containers.engine)
    fix = f"Start it (`sudo systemctl start {containers.engine}`), or add yourself to its group and log in again."
    return point.fail(f"{containers.engine}: {containers.problem}", fix)


def _toolkit(containers: Containers, task: GpuTask) -> Check:
    point = task.point("nvidia container toolkit", "gives the cards to containers")
    if containers.has_nvidia:
        return point.ok("installed")
    setup = (
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
        if containers.engine == "docker"
        else "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    )
    return point.fail("none", f"Install it ({_TOOLKIT}), then: {setup}")


def _image(containers: Containers, task: GpuTask) -> Check:
    gpu = task.gpu
    size = "of unknown size" if gpu.image_gb is None else f"{gpu.image_gb:g} GB"
    point = task.point("image", gpu.image)
    pull = f"{containers.engine} pull {gpu.image}"
    if gpu.image in containers.images:
        fix = f"Look inside before the first build: `scalellm-trt doctor {task.arguments} --container`."
        return point.warn(f"here, {containers.images[gpu.image] / GB:.1f} GB, not looked into", fix)
    if containers.images:
        other = next(iter(containers.images))
        return point.warn(
            f"{other}, of the same versions", f"Builds use {gpu.image} ({size}): {pull}. {gpu.image_note}"
        )
    return point.warn("not here", f"The first build pulls it ({size}); to do it now, with a progress bar: {pull}")


def _backend_library(found: Installation, task: GpuTask, wanted: str) -> Check:
    point = task.point("C++ backend", wanted)
    if wanted in found.backend_libraries:
        return point.ok(", ".join(found.backend_libraries))
    others = ", ".join(image.rpartition(":")[2] for image in task.gpu.images)
    return point.fail(
        ", ".join(found.backend_libraries) or "none",
        f"This Triton cannot serve engines. Use another of the images with these versions: {others}.",
    )


def _version(found: str | None, name: str, wanted: str, task: GpuTask) -> Check:
    point = task.point(name, wanted)
    if found is not None and same_release(found, wanted):
        return point.ok(found)
    fix = f"An engine loads only with the versions that built it: use {task.gpu.image}."
    return point.fail(found or "not installed", fix)


def _python_modules(found: Installation, task: GpuTask) -> Check:
    point = task.point("python modules", f"{', '.join(MODULES)}: the model that reads and writes text imports them")
    if found.python is None:
        return point.fail("no python3 on the PATH", f"Run inside {task.gpu.image}.")
    if not found.missing_modules:
        return point.ok(f"found by {found.python}")
    missing = ", ".join(found.missing_modules)
    fix = (
        f"In the image: {found.python} -m pip install {' '.join(found.missing_modules)}; keep it with `docker commit`, "
        "or put that line into a Dockerfile that begins with the image."
    )
    return point.fail(f"{found.python} does not find {missing}", fix)


def _kernels(found: Installation, task: GpuTask) -> Check:
    wanted = task.hardware.compute_capability or ""
    point = task.point("compiled kernels", f"code for compute capability {wanted}")
    if found.kernels_problem is not None or not found.kernels:
        fix = "Install cuda-cuobjdump; without it the first engine shows whether there is code for this card."
        return point.warn(found.kernels_problem or "not known", fix)
    listed = "; ".join(f"{library}: {' '.join(codes)}" for library, codes in found.kernels.items())
    missing = [library for library, codes in found.kernels.items() if wanted not in codes]
    if not missing:
        return point.ok(listed)
    if all(any(_runs(code, wanted) for code in found.kernels[library]) for library in missing):
        fix = "Code of a lower compute capability of the same generation runs here, without kernels made for this card."
        return point.warn(listed, fix)
    version = task.gpu.tensorrt_llm
    fix = (
        f"Rebuild the wheel in {task.gpu.image}: git clone --branch v{version} --recurse-submodules "
        "https://github.com/NVIDIA/TensorRT-LLM && cd TensorRT-LLM && python3 scripts/build_wheel.py "
        f'--cuda_architectures "{wanted.replace(".", "")}-real" --trt_root /usr/local/tensorrt --clean '
        "&& pip install --force-reinstall build/tensorrt_llm*.whl. A wheel from PyPI does not fit the C++ backend."
    )
    return point.fail(listed, fix)


def _runs(code: str, card: str) -> bool:
    """Tell whether machine code runs on a card: same major number, and no newer than the card."""
    (major, minor), (card_major, card_minor) = ([int(part) for part in text.split(".")] for text in (code, card))
    return major == card_major and minor <= card_minor


def _shared_memory(found: Installation, task: GpuTask) -> Check:
    point = task.point("/dev/shm", f"{format_gib(MIN_SHM_BYTES)}, for python models and for several ranks")
    if found.shm_bytes >= MIN_SHM_BYTES:
        return point.ok(format_gib(found.shm_bytes))
    return point.fail(format_gib(found.shm_bytes), f"Start the container with {_RUN_OPTIONS}.")


def _ulimits(found: Installation, task: GpuTask) -> Check:
    point = task.point("ulimits", f"memlock unlimited, stack {format_gib(MIN_STACK_BYTES)}")
    memlock = "unlimited" if found.memlock_bytes is None else format_gib(found.memlock_bytes)
    stack = "unlimited" if found.stack_bytes is None else format_gib(found.stack_bytes)
    told = f"memlock {memlock}, stack {stack}"
    is_stack_right = found.stack_bytes is None or found.stack_bytes >= MIN_STACK_BYTES
    if found.memlock_bytes is None and is_stack_right:
        return point.ok(told)
    return point.warn(told, f"Start the container with {_RUN_OPTIONS}.")
