"""Calibration on a real GPU: sound checkpoints, and device memory that does not grow with the number of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt import model_spec
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.modelopt import quantize
from scalellm_trt.checkpoint.verify import verify
from scripts.benchmarks.conversion import generate
from scripts.benchmarks.quantize_gpu import SHAPES, random_samples

if TYPE_CHECKING:
    from pathlib import Path

# The libraries warn about each other while they are imported.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

# Of a layer's own size; the two runs differ in nothing else that stays on the device.
MAX_GROWTH = 0.5


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("modelopt")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")


def peak_device_bytes(directory: Path, weights: str, num_layers: int) -> int:
    import torch

    model_dir, out_dir = directory / f"model-{num_layers}", directory / f"out-{num_layers}"
    model_dir.mkdir()
    out_dir.mkdir()
    generate(model_dir, num_layers, SHAPES["13b"])
    spec = model_spec.read(model_dir)
    config = config_for(spec, weights, "float16", "int8", group_size=128)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    quantize(model_dir, config, random_samples(spec.vocab_size, 4, 512), out_dir, lambda *_: None, device="cuda")
    assert verify(out_dir, spec, read_weights=False) == []
    return int(torch.cuda.max_memory_allocated())


@pytest.mark.parametrize("weights", ["fp8", "int4_awq"])
def test_device_memory_does_not_grow_with_the_layers(tmp_path: Path, weights: str) -> None:
    spec_bytes = 2 * 317_194_240  # one layer of Llama-2-13B in 16 bits
    assert peak_device_bytes(tmp_path, weights, 6) - peak_device_bytes(tmp_path, weights, 2) < MAX_GROWTH * spec_bytes
