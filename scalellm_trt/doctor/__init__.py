"""What this machine can do, with the fix for what it cannot: `look` reads the machine, `examine` judges it.

`checks` holds the value and the judgement of each point, `surroundings` what is read.
"""

from scalellm_trt.doctor.checks import Check, Status
from scalellm_trt.doctor.examine import EXIT_TOOLCHAIN, examine, exit_code
from scalellm_trt.doctor.surroundings import Surroundings, look

__all__ = ["EXIT_TOOLCHAIN", "Check", "Status", "Surroundings", "examine", "exit_code", "look"]
