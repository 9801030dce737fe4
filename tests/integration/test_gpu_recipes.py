"""Every engine recipe, whole: built by strict stand-ins for trtllm-build and docker, served by one for tritonserver.

Recipes are shipped ones with a random model of their architecture and lengths that it takes; weights, formats, cards
and services stay, and more ranks than two become two: each is a server with 3 GiB of host memory. Nothing here says
that a GPU would do it; it says that every file and argument is in place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalellm_trt import facts, recipe
from scalellm_trt.triton import ports
from tests.fakes import small_tokenizer
from tests.fakes.gpu_bench import bench
from tests.fakes.torch_models import random_model

if TYPE_CHECKING:
    from scalellm_trt.recipe import Recipe

# The libraries warn about each other while they are imported.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
RECIPES = {
    path.stem: recipe.load(path).recipe
    for path in sorted((ROOT / "recipes").glob("*.yaml"))
    if recipe.load(path).recipe.backend == "tensorrt_llm"
}
CALIBRATED = """quantization:
  calibration:
    num_samples: 2
    max_seq_len: 32
"""
SPREAD = """parallel:
  tp_size: 2
"""
FAMILIES = {"mixtral": "Mixtral", "Qwen2": "Qwen2"}
SMALL = """schema: 1
extends: {recipe}
name: {name}
model:
  source: ./model
limits:
  max_batch_size: 4
  max_input_len: 64
  max_seq_len: 128
  max_num_tokens: 128
serving:
  kv_cache_tokens: 512
"""


def write(directory: Path, name: str, shipped: Recipe) -> Path:
    """Write the recipe's small stand-in and its model; return the recipe."""
    family = next((found for part, found in FAMILIES.items() if part in shipped.model.source), "Llama")
    extras = {"tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 128}
    random_model(family, directory / "model", vocab_size=320, num_attention_heads=8, num_key_value_heads=8, head_dim=16,
                 hidden_size=128 * num_ranks(shipped), intermediate_size=128 * num_ranks(shipped),
                 **extras)  # fmt: skip
    small_tokenizer.write(directory / "model")
    path = directory / f"{name}.yaml"
    text = SMALL.format(recipe=ROOT / "recipes" / f"{name}.yaml", name=name)
    text += SPREAD if num_ranks(shipped) > 1 else ""
    path.write_text(text + (CALIBRATED if "calibration" in shipped.quantization.model_fields_set else ""))
    return path


def num_ranks(shipped: Recipe) -> int:
    return min(2, shipped.parallel.tp_size * shipped.parallel.pp_size)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "scalellm_trt", *words]


# With the image nothing else is here: it compiles and serves inside.
WAYS = {"here": ["trtllm-build", "tritonserver", "mpirun"], "container": ["docker"]}


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_built_and_served_here_and_in_its_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = RECIPES[name]
    path = write(tmp_path, name, shipped)
    for way in WAYS:
        with monkeypatch.context() as patch:
            build_and_serve(path, shipped, way, patch)


def build_and_serve(path: Path, shipped: Recipe, way: str, patch: pytest.MonkeyPatch) -> None:
    """Build, find nothing left to do, and serve; the second way finds the checkpoint of the first."""
    directory, name = path.parent, path.stem
    default = facts.default_toolchain("tensorrt_llm")
    assert default is not None
    row = facts.toolchains()[shipped.toolchain or default.name]
    assert row.gpu is not None
    bench(
        directory / way, patch, toolchain=row.name, hardware=shipped.hardware, programs=["nvidia-smi", *WAYS[way]],
        images=[row.gpu.image], num_cards=num_ranks(shipped),
    )  # fmt: skip
    patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"])))
    contained = ["--container"] if way == "container" else []
    places = ["--builds", str(directory / "builds"), "--repository", str(directory / f"repository-{way}"), *contained]
    build = command("build", str(path), "--no-smoke", *places, "--json")
    done = subprocess.run(
        [*build, *(["--force", "compile"] if contained else [])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_stages_run"] == (2 if contained else 3)
    again = subprocess.run(build, capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["num_stages_run"] == 0
    assert set(serve(places)) == services(name, shipped)
    assert not list((directory / way).glob("*.container"))


def services(name: str, shipped: Recipe) -> set[str]:
    """Return the names of a recipe's models."""
    texts = [name] if shipped.services == 1 else [f"{name}-{number + 1}" for number in range(shipped.services)]
    return {model for text in texts for model in (text, f"{text}_engine")}


def serve(places: list[str]) -> list[str]:
    """Serve the repository until it is ready; return the names of the models."""
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    argv = command("serve", "--json", *places, "--http-port", str(http_port), "--grpc-port", str(grpc_port))
    child = subprocess.Popen([*argv, "--metrics-port", str(metrics_port)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        started = time.monotonic()
        names: list[str] = json.loads(child.stdout.readline())["model_names"]
        assert time.monotonic() - started < 60
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=60) == 0
    return names
