"""Random models of transformers, small enough to quantize in a second, and samples for them; needs `[quantize]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.checkpoint.calibration import CalibrationSamples
from scripts.benchmarks.sides.random_models import VOCAB_SIZE, save_random_model

if TYPE_CHECKING:
    from pathlib import Path


def random_model(family: str, directory: Path, **changes: object) -> Any:
    """Save a random float16 model of transformers and return it."""
    for library in ("torch", "transformers", "modelopt"):
        pytest.importorskip(library)
    return save_random_model(family, directory, **changes)


def samples() -> CalibrationSamples:
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(0, VOCAB_SIZE, 32).astype(np.int32) for _ in range(3))
    return CalibrationSamples(source="random", token_ids=ids, max_seq_len=32, seed=0)
