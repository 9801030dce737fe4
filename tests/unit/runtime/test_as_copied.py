"""The files work where Triton puts them: as the package `1`, on a machine that does not have us installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

RUNTIME = Path(__file__).parents[3] / "scalellm_trt" / "runtime"
FAKE_BACKEND = Path(__file__).parents[2] / "fakes" / "triton_backend"

PROGRAM = """
import sys, importlib
sys.modules["scalellm_trt"] = None  # importing it fails, as where it is not installed
sys.path += [{model!r}, {backend!r}]
model = importlib.import_module("1.hosted_model")
for engine in ("openvino", "tensorrt_llm", "llmapi"):
    assert importlib.import_module(f"1.engine_{{engine}}").UNSUPPORTED_INPUTS
assert model.__package__ == "1", model.__package__
assert callable(model.TritonPythonModel().execute)
heavy = {{"openvino", "openvino_genai", "torch", "pydantic", "tokenizers", "tensorrt_llm"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_copied_files_import_without_us_and_without_heavy_libraries(tmp_path: Path) -> None:
    shutil.copytree(RUNTIME, tmp_path / "model" / "1", ignore=shutil.ignore_patterns("__init__.py", "__pycache__"))
    program = PROGRAM.format(model=str(tmp_path / "model"), backend=str(FAKE_BACKEND))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env={}, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
