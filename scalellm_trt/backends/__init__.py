"""Engines behind one small interface: `base` has the protocol, one file per backend, and the factory here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, UnsupportedError

if TYPE_CHECKING:
    from scalellm_trt.backends.base import Backend
    from scalellm_trt.recipe import BackendName

__all__ = ["backend_for"]


def backend_for(name: BackendName) -> Backend:
    """Return the backend of this name.

    Raises:
        UnsupportedError: this version does not have it.
    """
    if name == "openvino":
        from scalellm_trt.backends.openvino import OpenVinoBackend

        return OpenVinoBackend()
    message = f"backend {name!r} is not in this version"
    raise UnsupportedError([Problem(key="backend", message=message, hint="There is: openvino.")])
