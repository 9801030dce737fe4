"""The artefacts as values: Checkpoint, Engine, TritonModel, Repository, Endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EngineKind = Literal["trt_engine", "llm_api", "openvino_ir"]
TritonDataType = Literal[
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_UINT64",
    "TYPE_FP16",
    "TYPE_BF16",
    "TYPE_FP32",
    "TYPE_STRING",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model's files on this disk in Hugging Face layout: config.json, *.safetensors, tokenizer.json, ….

    Attributes:
        directory: where the files are.
        source: the recipe's `model.source`, as written.
        revision: what was really used: a commit, a file's SHA-256, or the digest of a local directory.
        digest: SHA-256 (hex) over the names and contents of the files that the build reads.
    """

    directory: Path
    source: str
    revision: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A directory in the TensorRT-LLM checkpoint format: config.json, rankN.safetensors, tokenizer files."""

    directory: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What an engine was built by and can be loaded on; read in the place where it was built, never guessed.

    Attributes:
        gpu_name: as nvidia-smi prints it.
        compute_capability: such as `8.9`.
        tensorrt, tensorrt_llm: versions of the Python packages.
        driver_floor: the oldest NVIDIA driver that the toolchain runs on.
        image: the container image; None where the toolchain was installed otherwise.
    """

    gpu_name: str
    compute_capability: str
    tensorrt: str
    tensorrt_llm: str
    driver_floor: str
    image: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What a runtime loads, with the files it needs beside it (tokenizer, chat template).

    `stamp` is None for engines that load on any machine.
    """

    directory: Path
    digest: str
    kind: EngineKind
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonTensor:
    """One input or output of a Triton model. `dims` leaves out the batch dimension; -1 is any length.

    Attributes:
        is_scalar: the backend sees no dimension but the batch's: `reshape { shape: [ ] }`.
        is_ragged: requests of one batch may have it in different lengths.
    """

    name: str
    data_type: TritonDataType
    dims: tuple[int, ...]
    optional: bool = False
    is_scalar: bool = False
    is_ragged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonModel:
    """One directory of the repository, before it is rendered.

    Attributes:
        name: the directory's name and the name that clients call.
        backend: Triton's backend, such as `python` or `tensorrtllm`.
        max_batch_size: Triton's request batch; 1 gives every tensor a leading dimension of 1. Never the engine's.
        inputs, outputs: the contract, in the order in which the config lists them.
        parameters: `parameters` of config.pbtxt: string values only.
        repository_paths: further parameters, each a path below the repository's root that becomes an absolute one.
        max_queue_size: requests that may wait; None leaves Triton's own queue, and with it any limit, out.
        default_model_filename: the file of the version directory that a python backend imports.
        source_files: files to copy into `1/`, by the name that they get there.
        directories: directories to place in `1/` (hard links where the file system allows), by name.
        settings: written to `1/service.json`, for the code that runs inside tritonserver.
    """

    name: str
    backend: str
    max_batch_size: int
    inputs: tuple[TritonTensor, ...]
    outputs: tuple[TritonTensor, ...]
    parameters: Mapping[str, str]
    default_model_filename: str | None
    source_files: Mapping[str, Path]
    directories: Mapping[str, Path]
    settings: Mapping[str, object]
    repository_paths: Mapping[str, str] = field(default_factory=dict)
    max_queue_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A model repository as `tritonserver --model-repository` takes it.

    Attributes:
        root: the directory.
        services: service name → the names of its models.
    """

    root: Path
    services: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A running tritonserver. Addresses are `host:port`."""

    grpc_address: str
    http_address: str
    metrics_address: str
    model_names: tuple[str, ...]
    pid: int
