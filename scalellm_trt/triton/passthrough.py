"""What `scripts/tritonserver` runs: become tritonserver, with the user's arguments and what they leave out."""

from __future__ import annotations

import os
import sys

from scalellm_trt.errors import ScaleLLMError
from scalellm_trt.triton import binary
from scalellm_trt.triton.server_command import complete, new_shm_prefix


def main(arguments: list[str]) -> int:
    """Replace this process by tritonserver: signals, exit code and process id are the server's own.

    Returns:
        The exit code, where there is no server to become.
    """
    try:
        found = binary.find()
    except ScaleLLMError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    argv = complete(arguments, found, new_shm_prefix())
    sys.stdout.flush()
    try:
        os.execve(found.executable, argv, found.environment(os.environ))
    except OSError as error:
        print(f"{found.executable} cannot be started: {error.strerror}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
