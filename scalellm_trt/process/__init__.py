"""The one way to start a program: echo it, stream its output to a log, bound it, and say what went wrong."""

from scalellm_trt.process.command import (
    NUM_TAIL_LINES,
    Beat,
    CommandFailedError,
    output,
    run,
    start,
    stop,
    tail,
)

__all__ = ["NUM_TAIL_LINES", "Beat", "CommandFailedError", "output", "run", "start", "stop", "tail"]
