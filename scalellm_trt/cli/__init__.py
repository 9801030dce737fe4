"""The command line: `main` maps every error to its exit code; each command has a file of its own."""

from scalellm_trt.cli.command_line import main

__all__ = ["main"]
