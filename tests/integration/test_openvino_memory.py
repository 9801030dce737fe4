"""Compressed weights stay compressed: memory of a process that compiles an engine's model and runs it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.backends.openvino_compile import MODEL_FILE, compile_checkpoint
from tests.fakes.tiny_checkpoints import write_checkpoint
from tests.fakes.tiny_models import tiny_spec

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.checkpoint.config import QuantAlgo

pytestmark = pytest.mark.integration

pytest.importorskip("openvino")

SPEC = dataclasses.replace(
    tiny_spec(), hidden_size=1024, intermediate_size=3072, num_layers=6, num_heads=16, num_kv_heads=8, head_dim=64
)

RUN = """
import sys
import numpy as np
import openvino as ov

def anonymous_bytes():
    status = open("/proc/self/status").read()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])

properties = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
core = ov.Core()
core.get_property("CPU", "FULL_DEVICE_NAME")
before = anonymous_bytes()
request = core.compile_model(sys.argv[1], "CPU", properties).create_infer_request()
request.infer({
    "input_ids": np.ones((1, 1), np.int64), "attention_mask": np.ones((1, 1), np.int64),
    "position_ids": np.zeros((1, 1), np.int64), "beam_idx": np.zeros(1, np.int32),
})
print(anonymous_bytes() - before)
"""


@pytest.mark.parametrize(("quant_algo", "bytes_per_weight"), [(None, 2.0), ("W8A16", 1.0), ("W4A16_AWQ", 0.5)])
def test_a_running_model_holds_its_weights_in_their_format(
    tmp_path: Path, quant_algo: QuantAlgo | None, bytes_per_weight: float
) -> None:
    write_checkpoint(tmp_path / "checkpoint", SPEC, quant_algo=quant_algo)
    (tmp_path / "engine").mkdir()
    compile_checkpoint(tmp_path / "checkpoint", tmp_path / "engine", lambda _activity, _share: None)
    command = [sys.executable, "-c", RUN, str(tmp_path / "engine" / MODEL_FILE)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    scales = SPEC.num_linear_parameters // 32 * 4 if quant_algo == "W4A16_AWQ" else 0
    assert grown < SPEC.num_linear_parameters * bytes_per_weight + 2 * scales + 40 * 2**20
