"""`python -m scalellm_trt`: the command line where no script directory is on the PATH."""

from scalellm_trt.cli import main

main()
