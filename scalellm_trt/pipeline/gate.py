"""Serve what is about to be published from a repository of its own, ask it the smoke questions, keep the verdict.

The gate is for engines that nobody ran before: those of GPU toolchains. It needs a tritonserver that can load them: the
image's, where the build compiles in the image, else one on the PATH. Elsewhere the build is published unproven and
says so.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt import detect, facts
from scalellm_trt.artefacts import digest, manifest
from scalellm_trt.artefacts.types import Engine
from scalellm_trt.backends import image
from scalellm_trt.backends.openvino import WEIGHT_FORMATS, OpenVinoBackend
from scalellm_trt.detect import nvidia
from scalellm_trt.errors import ThresholdMissedError, ToolchainError
from scalellm_trt.pipeline import smoke
from scalellm_trt.triton import (
    binary,
    client,
    launch,
    ports,
    published_engines,
    repository,
    server,
    server_image,
    serving,
)
from scalellm_trt.triton.client import TextParams
from scalellm_trt.triton.server_command import ServerOptions, new_shm_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scalellm_trt.artefacts.types import Checkpoint, TritonModel
    from scalellm_trt.backends.container import EngineName
    from scalellm_trt.pipeline.smoke import Asker, SmokeReport
    from scalellm_trt.pipeline.steps import Workspace
    from scalellm_trt.plan import Plan
    from scalellm_trt.triton.binary import ServerBinary

READY_TIMEOUT_S = 1200.0
GREEDY_TOP_K = 1
MIN_FREE_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TextService:
    """A running service as something to ask; see `smoke.Asker`."""

    url: str
    model: str

    def answer(self, prompt: str, max_tokens: int) -> str:
        """Return the whole greedy answer."""
        params = TextParams(max_tokens=max_tokens, top_k=GREEDY_TOP_K)
        return "".join(chunk.text for chunk in client.stream(self.url, self.model, prompt, params))

    def cancel_after_first(self, prompts: Sequence[str], max_tokens: int) -> None:
        """Ask all at the same time, and cancel each after its first chunk."""
        with ThreadPoolExecutor(max_workers=len(prompts)) as pool:
            list(pool.map(lambda prompt: self._cancel(prompt, max_tokens), prompts))

    def _cancel(self, prompt: str, max_tokens: int) -> None:
        params = TextParams(max_tokens=max_tokens, top_k=GREEDY_TOP_K)
        with closing(client.stream(self.url, self.model, prompt, params)) as chunks:
            next(chunks, None)


def is_needed(plan: Plan) -> bool:
    """Tell whether the plan's engine is of a kind that nobody can have run before it is served."""
    return facts.toolchains()[plan.toolchain].gpu is not None


def find_server(plan: Plan, engine: EngineName | None) -> ServerBinary | str:
    """Return the server that can load the plan's engine, or say why there is none.

    Args:
        plan: names the toolchain, and so the image.
        engine: of a build in a container; None for one that has its tools here.
    """
    if engine is None:
        found = _server_here()
        # The one of the wheel has no backend for GPU engines.
        return found if found is not None and found.origin == "path" else "no tritonserver for it on the PATH"
    gpu = facts.toolchains()[plan.toolchain].gpu
    if gpu is None or not gpu.has_tritonserver:
        return "no tritonserver in its image"
    if not nvidia.look().gpus:
        return "no NVIDIA card here"
    return server_image.binary_of(engine, image.choose(engine, gpu))


def command(plan: Plan, models: Sequence[TritonModel], workspace: Workspace) -> list[str]:
    """Return the argv of the gate's server, for a dry run: the real one takes free ports and a name of its own.

    In a container it is shown on machines without a card too. Empty where no server is known.
    """
    gpu = facts.toolchains()[plan.toolchain].gpu
    if gpu is None:
        return []
    found: ServerBinary | str
    if workspace.container is not None and gpu.has_tritonserver:
        found = server_image.binary_of(workspace.container, image.choose(workspace.container, gpu))
    else:
        found = find_server(plan, workspace.container)
    if isinstance(found, str):
        return []
    root = (workspace.builds_dir / ".cache" / "smoke" / plan.name).resolve()
    options = ServerOptions(repository=root, shm_prefix="scalellm_smoke_")
    engines = published_engines.of_models(models, plan.name)
    mode = launch.choose_mode(engines, wants_orchestrator=False)
    planned = launch.plan(found, options, engines, mode, num_gpus=plan.world_size)
    return list((planned if found.image is None else server_image.contain(planned, found.image, options)).argv)


def _server_here() -> ServerBinary | None:
    try:
        return binary.find()
    except ToolchainError:
        return None


def check(
    plan: Plan,
    checkpoint: Checkpoint,
    engine: Engine,
    models: Sequence[TritonModel],
    *,
    found: ServerBinary,
    builds_dir: Path,
    progress: Callable[[str, float], None],
) -> None:
    """Serve `models` and ask each text model; the report is kept in `builds/NAME/smoke.json`.

    Raises:
        ThresholdMissedError: what they answer must not be published; the report says why.
        ServerNotReadyError: the server did not come up with them.
    """
    reference: tuple[str, ...] | None = None
    # The CPU engine lives in this Python, not in an image.
    here = found if found.image is None else _server_here()
    if here is not None and can_have_reference(plan, detect.machine().memory_available_bytes):
        progress("ask the CPU engine of the same checkpoint", 0.1)
        reference = _reference(plan, checkpoint, here, builds_dir)
    progress("start the engine", 0.3)
    with served(models, plan, engine, found=found, builds_dir=builds_dir, log_name="smoke") as url:
        for model in models:
            if model.backend == "python":
                progress(f"ask {model.name}", 0.6)
                judge(TextService(url=url, model=model.name), plan, builds_dir, name=model.name, reference=reference)


def can_have_reference(plan: Plan, memory_bytes: int) -> bool:
    """Tell whether the CPU can run the plan's checkpoint here: format, ranks, OpenVINO, and memory for two copies."""
    weights_bytes = 2 * plan.spec.num_linear_parameters
    gpu = facts.toolchains()[plan.toolchain].gpu
    return (
        # Without a compile step the checkpoint is in Hugging Face's layout, which our compiler does not read.
        (gpu is None or gpu.has_compile)
        and plan.quantization.weights in WEIGHT_FORMATS
        and plan.world_size == 1
        and importlib.util.find_spec("openvino") is not None
        and 2 * weights_bytes + MIN_FREE_BYTES <= memory_bytes
    )


def cpu_plan(plan: Plan) -> Plan:
    """Return the plan of the same checkpoint for the embedded engine, with room for one short request at a time."""
    block = 32
    tokens = -(-plan.limits.max_seq_len // block) * block
    serving = dataclasses.replace(
        plan.serving, kv_cache_reuse=False, chunked_context=True, kv_cache_tokens=tokens, tokens_per_block=block
    )
    quantization = dataclasses.replace(plan.quantization, kv_cache_dtype="float16")
    return dataclasses.replace(plan, services=1, serving=serving, quantization=quantization)


def _reference(plan: Plan, checkpoint: Checkpoint, found: ServerBinary, builds_dir: Path) -> tuple[str, ...]:
    backend, planned, wanted = OpenVinoBackend(), cpu_plan(plan), smoke.limits()
    with tempfile.TemporaryDirectory(prefix="scalellm-reference-") as folder:
        backend.compile(planned, checkpoint, Path(folder), lambda activity, share: None)
        engine = Engine(directory=Path(folder), digest=checkpoint.digest, kind=backend.engine_kind)
        models = backend.triton_models(planned, engine)
        with served(models, planned, engine, found=found, builds_dir=builds_dir, log_name="reference") as url:
            service = TextService(url=url, model=plan.name)
            return tuple(service.answer(prompt, wanted.max_tokens) for prompt in wanted.prompts)


@contextmanager
def served(
    models: Sequence[TritonModel], plan: Plan, engine: Engine, *, found: ServerBinary, builds_dir: Path, log_name: str
) -> Iterator[str]:
    """Run a server over a repository of nothing but `models`; yield its gRPC address, and leave nothing behind."""
    root = builds_dir / ".cache" / log_name / plan.name
    state_dir = root.with_name(f"{root.name}.state")
    _clear(root, state_dir)
    repository.publish(
        models,
        service=plan.name,
        recipe=plan.name,
        owner_digest=digest.of_value(engine.digest),
        engine_digest=engine.digest,
        stamp=engine.stamp,
        toolchain=plan.toolchain,
        root=root,
        state_dir=state_dir,
    )
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    options = ServerOptions(
        repository=root,
        shm_prefix=new_shm_prefix(),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )
    try:
        _, planned = serving.prepare(found, options, state_dir=state_dir, wants_orchestrator=False)
        log = builds_dir / plan.name / "logs" / f"{log_name}.log"
        with server.start(found, options, log=log, launch=planned) as running:
            yield running.wait_ready(READY_TIMEOUT_S).grpc_address
    finally:
        _clear(root, state_dir)


def _clear(*directories: Path) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def judge(
    asker: Asker, plan: Plan, builds_dir: Path, *, name: str, reference: Sequence[str] | None = None
) -> SmokeReport:
    """Ask, keep the report, and refuse what is wrong.

    Raises:
        ThresholdMissedError: with every problem, and where the report is.
    """
    report = smoke.run(asker, smoke.limits(), reference=reference, num_places=plan.limits.max_batch_size)
    path = builds_dir / plan.name / "smoke.json"
    manifest.replace_text(path, json.dumps({"model": name, **dataclasses.asdict(report)}, indent=1) + "\n")
    if report.problems:
        message = f"{name}: the smoke test failed, nothing is published: {'; '.join(report.problems)}"
        hint = f"Its answers: {path}. Published before stays. To publish all the same: build --no-smoke"
        raise ThresholdMissedError(message, hint=hint)
    return report
