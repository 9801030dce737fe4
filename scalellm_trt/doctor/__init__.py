"""What this machine can do, with the fix for what it cannot: `look` reads the machine, `examine` judges it.

`question` says what is wanted, `surroundings` what is read, `checks` holds the value and the judgement of each point.
For GPUs: `gpu_task` says what is wanted, `gpu_checks` judges cards, driver and resources, `image_checks` the toolchain,
which `probe` reads from within.
"""

from scalellm_trt.doctor.checks import Check, Status
from scalellm_trt.doctor.examine import EXIT_TOOLCHAIN, examine, exit_code
from scalellm_trt.doctor.question import Question, about
from scalellm_trt.doctor.surroundings import GpuSurroundings, Surroundings, look

__all__ = [
    "EXIT_TOOLCHAIN",
    "Check",
    "GpuSurroundings",
    "Question",
    "Status",
    "Surroundings",
    "about",
    "examine",
    "exit_code",
    "look",
]
