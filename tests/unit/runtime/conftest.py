"""Lets modules of `runtime/` find the fake `triton_python_backend_utils` under its real name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "fakes" / "triton_backend"))
