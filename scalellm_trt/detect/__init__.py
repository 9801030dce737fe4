"""The machine at hand, as values: `machine` reads processors, memory and libraries, `nvidia` the cards."""

from scalellm_trt.detect.machine import (
    Isa,
    Machine,
    cpu_model,
    disk_free_bytes,
    glibc_version,
    isa,
    libpython,
    machine,
    memory_within_cgroup,
    usable_cores,
)
from scalellm_trt.detect.nvidia import Gpu, Gpus

__all__ = [
    "Gpu",
    "Gpus",
    "Isa",
    "Machine",
    "cpu_model",
    "disk_free_bytes",
    "glibc_version",
    "isa",
    "libpython",
    "machine",
    "memory_within_cgroup",
    "usable_cores",
]
