"""`data/toolchains.yaml`: sets of tool versions that belong together, on the host or in a container image."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast

from scalellm_trt.facts import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.facts.rows import Origin, Row

EngineContract = Literal["0.13", "1.x"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostToolchain:
    """A toolchain that is installed into the Python at hand.

    Attributes:
        python: PEP 440 range of the interpreter's version.
        wanted_isa: instruction set without which the engine is slow.
        glibc: the oldest C library that its binaries load on.
        packages: Python distribution → PEP 440 range, needed by every build and by serving.
        quantize_packages: the same, for calibrated formats only.
        prefill_flops_per_core: multiply-adds count two; an estimate for a step's duration.
    """

    python: str
    wanted_isa: str
    glibc: str
    packages: Mapping[str, str]
    quantize_packages: Mapping[str, str]
    prefill_flops_per_core: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuToolchain:
    """A toolchain that lives in a container image.

    Attributes:
        driver: the NVIDIA driver that the image was built with.
        driver_floor: the oldest driver that can run it; `driver_floor_note` says how sure that is.
        image: the tag that is pinned; `images` are all that are accepted.
        stamp_class: tags whose engines may be exchanged: same TensorRT, same TensorRT-LLM.
        image_has_triton: whether tritonserver is in the image, so that what is built can be served in it.
        image_note: what is known, and what is not, about the images.
        image_gb: what a pull takes, in 10^9 bytes; None where no source says it.
        build_flags: every flag of its trtllm-build → default ("none" = unset); empty without a compile step.
        renamed_flags: a flag of another version → what it is called here; None where it is gone.
        changed_defaults: what users of the version before notice.
        contract: names of tensors and parameters of the C++ backend.
        has_compile: whether engines are built; else the runtime loads a Hugging Face checkpoint.
        has_inner_cancel: whether a python model can cancel the request that it sent to another model.
        backend_library: the C++ backend inside the image; None for python engines.
    """

    tensorrt_llm: str
    tensorrt: str
    cuda: str
    python: str
    modelopt: str
    driver: str
    driver_floor: str
    driver_floor_note: str
    image: str
    images: tuple[str, ...]
    stamp_class: tuple[str, ...]
    image_has_triton: bool
    image_note: str
    image_gb: float | None
    build_flags: Mapping[str, str]
    renamed_flags: Mapping[str, str | None]
    changed_defaults: tuple[str, ...]
    contract: EngineContract
    has_compile: bool
    has_inner_cancel: bool
    backend_library: str | None

    @property
    def has_tritonserver(self) -> bool:
        """Whether the pinned image is one of Triton's; others have to be given a tritonserver first."""
        return "/tritonserver:" in self.image


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """Tool versions that belong together. Exactly one of `host` and `gpu` is there.

    Attributes:
        max_world_size: ranks that one copy of a model may be spread over.
        max_services: copies of a service that may share a machine or card.
        model_architectures: names from config.json's `architectures` that it compiles or loads.
        stages: build stage, in order → patterns of the plan keys that it depends on.
        memory: figures of the engine's budgets that no formula gives, by the names that `memory` reads.
    """

    name: str
    backend: str
    is_default: bool
    engine_kind: str
    tokens_per_block: int
    max_world_size: int
    max_services: int
    architecture: str
    model_architectures: tuple[str, ...]
    stages: Mapping[str, tuple[str, ...]]
    memory: Mapping[str, int]
    host: HostToolchain | None
    gpu: GpuToolchain | None
    origin: Origin


@functools.cache
def toolchains() -> Mapping[str, Toolchain]:
    """Return the toolchains by name."""
    return rows.load("toolchains.yaml", parse_toolchain)


def default_toolchain(backend: str) -> Toolchain | None:
    """Return the toolchain that a backend uses where the recipe names none."""
    return next((row for row in toolchains().values() if row.backend == backend and row.is_default), None)


def parse_toolchain(name: str, row: Row) -> Toolchain:
    """Turn one row of toolchains.yaml into its type."""
    stages = rows.table(row, "stages")
    if ("host" in row) == ("gpu" in row):
        message = "exactly one of host and gpu must be there"
        raise TypeError(message)
    return Toolchain(
        name=name,
        backend=rows.text(row, "backend"),
        is_default=rows.flag(row, "is_default"),
        engine_kind=rows.text(row, "engine_kind"),
        tokens_per_block=rows.whole(row, "tokens_per_block"),
        max_world_size=rows.whole(row, "max_world_size"),
        max_services=rows.whole(row, "max_services"),
        architecture=rows.text(row, "architecture"),
        model_architectures=rows.texts(row, "model_architectures"),
        stages=MappingProxyType({stage: rows.texts(stages, stage) for stage in stages}),
        memory=rows.whole_table(row, "memory"),
        host=_host(rows.table(row, "host")) if "host" in row else None,
        gpu=_gpu(rows.table(row, "gpu")) if "gpu" in row else None,
        origin=rows.origin(row),
    )


def _host(row: Row) -> HostToolchain:
    return HostToolchain(
        python=rows.text(row, "python"),
        wanted_isa=rows.text(row, "wanted_isa"),
        glibc=rows.text(row, "glibc"),
        packages=rows.text_table(row, "packages"),
        quantize_packages=rows.text_table(row, "quantize_packages"),
        prefill_flops_per_core=rows.whole(row, "prefill_flops_per_core"),
    )


def _gpu(row: Row) -> GpuToolchain:
    return GpuToolchain(
        tensorrt_llm=rows.text(row, "tensorrt_llm"),
        tensorrt=rows.text(row, "tensorrt"),
        cuda=rows.text(row, "cuda"),
        python=rows.text(row, "python"),
        modelopt=rows.text(row, "modelopt"),
        driver=rows.text(row, "driver"),
        driver_floor=rows.text(row, "driver_floor"),
        driver_floor_note=rows.text(row, "driver_floor_note"),
        image=rows.text(row, "image"),
        images=rows.texts(row, "images"),
        stamp_class=rows.texts(row, "stamp_class"),
        image_has_triton=rows.flag(row, "image_has_triton"),
        image_note=rows.text(row, "image_note"),
        image_gb=rows.number(row, "image_gb") if "image_gb" in row else None,
        build_flags=rows.text_table(row, "build_flags"),
        renamed_flags=rows.text_or_none_table(row, "renamed_flags"),
        changed_defaults=rows.texts(row, "changed_defaults"),
        contract=cast("EngineContract", rows.one_of(row, "contract", ("0.13", "1.x"))),
        has_compile=rows.flag(row, "has_compile"),
        has_inner_cancel=rows.flag(row, "has_inner_cancel"),
        backend_library=rows.text_or_none(row, "backend_library"),
    )
