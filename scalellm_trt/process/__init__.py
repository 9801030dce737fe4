"""The one way to start a program: echo it, stream its output to a log, bound it, and say what went wrong."""

from scalellm_trt.process.command import (
    Beat,
    CommandFailedError,
    output,
    run,
    start,
    stop,
    tail,
)

__all__ = ["Beat", "CommandFailedError", "output", "run", "start", "stop", "tail"]
