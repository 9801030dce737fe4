"""Cards and driver against what is wanted of them; the machine's other resources against a GPU recipe's plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt import facts
from scalellm_trt.backends import calibration_tools
from scalellm_trt.backends.gpu_machine import GpuMachine
from scalellm_trt.doctor.checks import satisfies
from scalellm_trt.memory import format_gib
from scalellm_trt.triton import stamp_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.artefacts.types import Stamp
    from scalellm_trt.detect import Gpu, Machine
    from scalellm_trt.doctor.checks import Check
    from scalellm_trt.doctor.gpu_task import GpuTask
    from scalellm_trt.doctor.probe import Installation

# What a desktop with one screen takes, by NVIDIA's own tools; an estimate.
DISPLAY_NOTE = "a desktop takes 0.5 to 1 GiB of it: log out of it, or attach the screen to another card"

_REBUILD = "Build it again, for this card and these versions: `scalellm-trt build RECIPE --force compile`."


def cards(machine: Machine, task: GpuTask) -> Check:
    """Judge whether the cards are those that are wanted; engines run on the kind of card that built them."""
    wanted = task.hardware
    needed = f"{task.world_size} x {wanted.name} (compute capability {wanted.compute_capability})"
    point = task.point("gpu", needed)
    if machine.gpu_problem:
        fix = "Install the NVIDIA driver again and restart; in a container: start it with --gpus all."
        return point.fail(machine.gpu_problem, fix)
    if not machine.gpus:
        fix = "Nothing but `plan` and `build --dry-run` works here: build and serve on a machine with the card."
        return point.fail("no NVIDIA card", fix)
    first, found = machine.gpus[0], ", ".join(gpu.name for gpu in machine.gpus)
    if first.compute_capability != wanted.compute_capability:
        row = facts.hardware_of(first.name)
        other = f" Ask `scalellm-trt plan RECIPE --hardware {row.name}`." if row else ""
        fix = f"Use a recipe for {first.name} (compute capability {first.compute_capability}).{other}"
        return point.fail(found, fix)
    if len(machine.gpus) < task.world_size:
        return point.fail(found, "Lower parallel.tp_size and pp_size to the cards that are here.")
    if first.has_mig:
        return point.warn(f"{found}, cut into MIG instances", "Memory and speed are those of the instance: plan less.")
    if (row := facts.hardware_of(first.name)) is None or row.name != wanted.name:
        fix = "Engines for this compute capability run here; the plan's memory and speed are those of another card."
        return point.warn(found, fix)
    return point.ok(found)


def driver(card: Gpu, task: GpuTask) -> Check:
    """Judge the driver's version against the toolchain's floor."""
    gpu = task.gpu
    point = task.point("nvidia driver", f">={gpu.driver_floor}, the image was made with {gpu.driver}")
    found = card.driver_version
    if satisfies(found, f">={gpu.driver_floor}"):
        return point.ok(found)
    branch = gpu.driver.split(".")[0]
    fix = (
        f"Install driver {gpu.driver_floor} or newer (Ubuntu: sudo apt-get install nvidia-driver-{branch}) and restart."
    )
    return point.fail(found, f"{fix} {gpu.driver_floor_note}")


def device_memory(ours: Sequence[Gpu], task: GpuTask) -> Check:
    """Judge the free memory of the cards that the model takes: total memory is not what an engine gets."""
    needed_bytes = task.needed_bytes("device")
    needed = task.unknown_need if needed_bytes is None else f"{format_gib(needed_bytes)} on each card"
    point = task.point("device memory", needed)
    tightest = min(ours, key=_free)
    found = f"{format_gib(tightest.memory_free_bytes)} free of {format_gib(tightest.memory_bytes)}"
    if needed_bytes is None or tightest.memory_free_bytes >= needed_bytes:
        return point.ok(found + (", with a screen" if tightest.has_display else ""))
    missing = format_gib(needed_bytes - tightest.memory_free_bytes)
    display = f"; {DISPLAY_NOTE}" if tightest.has_display else ""
    fix = f"{missing} more are needed: end what `nvidia-smi` lists{display}. Or lower serving.kv_cache_tokens."
    return point.fail(found, fix)


def host_memory(machine: Machine, task: GpuTask) -> Check:
    """Judge the host's free memory against the greediest stage."""
    needed_bytes = task.needed_bytes("host")
    point = task.point("host memory", task.unknown_need if needed_bytes is None else format_gib(needed_bytes))
    found = f"{format_gib(machine.memory_available_bytes)} available of {format_gib(machine.memory_total_bytes)}"
    if needed_bytes is None or machine.memory_available_bytes >= needed_bytes:
        return point.ok(found)
    if machine.memory_total_bytes >= needed_bytes:
        return point.warn(found, "End other programs first: the compiler is killed when memory runs out.")
    fix = "The compiler would be killed: use a machine with more memory, or add swap at the price of time."
    return point.fail(found, fix)


def disk(machine: Machine, task: GpuTask, pull_bytes: int) -> Check:
    """Judge the free disk space against the plan's artefacts and an image that has to be pulled."""
    planned = task.needed_bytes("disk")
    pull = f" and {format_gib(pull_bytes)} of image" if pull_bytes else ""
    amount = f"artefacts ({task.unknown_need})" if planned is None else f"{format_gib(planned)} of artefacts"
    point = task.point("disk for the build", amount + pull)
    found = f"{format_gib(machine.disk_free_bytes)} free"
    if machine.disk_free_bytes >= (planned or 0) + pull_bytes:
        return point.ok(found)
    return point.fail(found, "Free space, or give `build --builds DIRECTORY` on a larger disk.")


def model_access(has_token: bool, task: GpuTask) -> Check | None:
    """Judge whether a gated model can be downloaded; a token is never shown. None where nothing is gated."""
    row = None if task.model_source is None else facts.model_from(task.model_source)
    if row is None or not row.is_gated or task.model_source is None:
        return None
    point = task.point("model access", f"a Hugging Face token whose account accepted the licence ({row.license})")
    if has_token:
        return point.ok("a token is set; whether it may read this model shows when it is downloaded")
    name = task.model_source.removeprefix("hf:").partition("@")[0]
    page = f"https://huggingface.co/{name}"
    fix = f"Accept the licence at {page}, then `export HF_TOKEN=…`; or use a recipe with an open model."
    return point.fail("no token", fix)


def calibration(task: GpuTask) -> Check | None:
    """Judge the libraries that choose scales; they run here, also where the engine is compiled in an image."""
    weights = (
        None if task.plan is None or task.plan.quantization.calibration is None else task.plan.quantization.weights
    )
    if weights is None:
        return None
    point = task.point("calibration", f"{', '.join(calibration_tools.TOOLS)}; where `build` runs, not in the image")
    missing = calibration_tools.missing(weights)
    return point.fail(missing[0], calibration_tools.INSTALL) if missing else point.ok("installed")


def plan(task: GpuTask) -> Check | None:
    """Tell why a recipe cannot be planned; None where it can, or where there is none."""
    if task.plan_problem is None:
        return None
    return task.point("plan", "a plan that fits").fail(task.plan_problem, f"See `scalellm-trt plan {task.arguments}`.")


def stamp(service: str, stamp: Stamp, machine: Machine, found: Installation, task: GpuTask) -> Check:
    """Judge whether an engine that was published can be loaded: by the first card, and by what is installed.

    Where nothing is installed the engine will be served in the toolchain's image: its versions are compared.
    """
    point = task.point(f"engine {service}", "built on this kind of card, by these versions")
    built = f"built on {stamp.gpu_name} by TensorRT {stamp.tensorrt}, TensorRT-LLM {stamp.tensorrt_llm}"
    gpu = task.gpu
    here = GpuMachine(
        cards=machine.gpus,
        tensorrt=found.tensorrt if found.is_there else gpu.tensorrt,
        tensorrt_llm=found.tensorrt_llm if found.is_there else gpu.tensorrt_llm,
        trtllm_build=found.trtllm_build,
        image=None,
    )
    place = "here" if found.is_there else f"of {task.toolchain.name}"
    if wrong := stamp_check.version_problems(stamp, here, place):
        image = f" Or serve it in {stamp.image}." if stamp.image else ""
        return point.fail(f"{built}; {'; '.join(wrong)}", f"{_REBUILD}{image}")
    if machine.gpus and (wrong := stamp_check.card_problems(stamp, here.cards)):
        return point.fail(f"{built}; {'; '.join(wrong)}", _REBUILD)
    return point.ok(built)


def _free(gpu: Gpu) -> int:
    return gpu.memory_free_bytes
