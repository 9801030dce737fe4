"""Engines behind one small interface: `base` has the protocol, one file per backend, and the factory here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.backends.base import Backend
    from scalellm_trt.backends.site import Site
    from scalellm_trt.recipe import BackendName

__all__ = ["backend_for"]


def backend_for(name: BackendName, site: Site) -> Backend:
    """Return the backend of this name, which does its work at `site`."""
    if name == "openvino":
        from scalellm_trt.backends.openvino import OpenVinoBackend

        return OpenVinoBackend()
    if name == "tensorrt_llm":
        from scalellm_trt.backends.tensorrt_llm import TensorRtLlmBackend

        return TensorRtLlmBackend(site)
    from scalellm_trt.backends.llmapi import LlmApiBackend

    return LlmApiBackend()
