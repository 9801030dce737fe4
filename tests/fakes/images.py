"""The files of a Triton image with TensorRT-LLM, as far as the doctor looks at them, below any folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = "opt/venv-tritonserver/lib/python3.12/site-packages"


def make(
    root: Path,
    *,
    tensorrt_llm: str = "1.2.1",
    tensorrt: str = "10.14.1.48.post1",
    kernels: str = "sm_80 sm_86 sm_89 sm_90a sm_120f",
    plugin_kernels: str = "",
    has_backend: bool = True,
) -> Path:
    """Write the files and return the folder that belongs on the PATH."""
    packages = root / PACKAGES
    for name in (f"tensorrt_llm-{tensorrt_llm}", f"tensorrt_cu13-{tensorrt}"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    # Another package whose name begins alike.
    (packages / "tensorrt_cu13_bindings-9.9.9.dist-info").mkdir()
    libs = packages / "tensorrt_llm" / "libs"
    libs.mkdir(parents=True)
    (libs / "libtensorrt_llm.so").write_text(kernels)
    (libs / "libnvinfer_plugin_tensorrt_llm.so").write_text(plugin_kernels)
    backends = root / "opt/tritonserver/backends/tensorrtllm"
    backends.mkdir(parents=True)
    if has_backend:
        (backends / "libtriton_tensorrtllm.so").touch()
    programs = root / "opt/venv-tritonserver/bin"
    programs.mkdir(parents=True)
    (programs / "trtllm-build").write_text("#!/bin/sh\nexit 1\n")
    (programs / "trtllm-build").chmod(0o755)
    (root / "dev/shm").mkdir(parents=True)
    return programs
