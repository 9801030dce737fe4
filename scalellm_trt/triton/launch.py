"""Engines in, how their tritonserver is started out: plainly, one server per rank under mpirun, or as an orchestrator.

The argv is that of NVIDIA's launcher (TensorRT-LLM 1.2, triton_backend/scripts/launch_triton_server.py). In leader
mode all ranks get the same ports, which only rank 0 ever opens; mpirun is watched and stopped as one job.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from scalellm_trt.errors import Problem, UnsupportedError
from scalellm_trt.triton.server_command import command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalellm_trt.triton.binary import ServerBinary
    from scalellm_trt.triton.published_engines import PublishedEngine
    from scalellm_trt.triton.server_command import ServerOptions

LaunchMode = Literal["plain", "leader", "orchestrator"]

MPIRUN: Final = ("mpirun", "--allow-run-as-root")
# Budgets are met exactly when one model loads after the other: each takes its share of what is free at that moment.
ONE_AFTER_THE_OTHER: Final = "--model-load-thread-count=1"
NO_AUTO_COMPLETE: Final = "--disable-auto-complete-config"
ORCHESTRATOR_ENV: Final[Mapping[str, str]] = {
    "TRTLLM_ORCHESTRATOR": "1",
    "TRTLLM_ORCHESTRATOR_SPAWN_PROCESSES": "1",
}
KILL_AFTER_VARIABLE: Final = "OMPI_MCA_odls_base_sigkill_timeout"
"""Open MPI kills its processes 1 s after SIGTERM, too soon for running requests to end."""

_APART: Final = (
    "Serve each from a repository of its own (build --repository), its cards named by CUDA_VISIBLE_DEVICES=…."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is run.

    Attributes:
        env: added to the server's environment.
        last: run once the server has ended or was ended, in whatever way.
    """

    mode: LaunchMode
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    last: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """The program that must be there."""
        return self.argv[0]


def choose_mode(engines: Sequence[PublishedEngine], *, wants_orchestrator: bool) -> LaunchMode:
    """Return how a server of these engines has to be started.

    Raises:
        UnsupportedError: they cannot be served together.
    """
    native = [engine for engine in engines if engine.hosted_by == "tensorrtllm"]
    spread = [engine for engine in native if engine.world_size > 1]
    if wants_orchestrator and native:
        if len(spread) > 1:
            message = f"{_ranks(spread)}: each takes the first cards of the machine, so they would share them"
            raise UnsupportedError([Problem(key="parallel.tp_size", message=message, hint=_APART)])
        return "orchestrator"
    if not spread:
        return "plain"
    if len(native) > 1:
        message = (
            f"{_ranks(native)}: in leader mode one engine over several GPUs takes all ranks of the server for itself"
        )
        hint = _APART if len(spread) > 1 else f"{_APART} Or all with serve --orchestrator."
        raise UnsupportedError([Problem(key="parallel.tp_size", message=message, hint=hint)])
    return "leader"


def _ranks(engines: Sequence[PublishedEngine]) -> str:
    return ", ".join(f"{engine.model} ({engine.world_size} ranks)" for engine in engines)


def plan(
    binary: ServerBinary, options: ServerOptions, engines: Sequence[PublishedEngine], mode: LaunchMode, *, num_gpus: int
) -> Launch:
    """Return the command for `mode`.

    Args:
        binary: the server's program.
        options: where it listens and what it serves.
        engines: from `published_engines.find`.
        mode: from `choose_mode`.
        num_gpus: of this machine; the orchestrator keeps no memory pool on any of them.
    """
    added = [ONE_AFTER_THE_OTHER] if len(engines) > 1 else []
    if mode == "leader":
        [engine] = [engine for engine in engines if engine.world_size > 1]
        return _leader(binary, options, engine, added)
    if mode == "orchestrator":
        added += [
            *("--pinned-memory-pool-byte-size=0", "--enable-peer-access=false"),
            *(f"--cuda-memory-pool-byte-size={number}:0" for number in range(num_gpus)),
            NO_AUTO_COMPLETE,
        ]
        argv = [*MPIRUN, "-n", "1", *command(binary, options), *added]
        return Launch(mode=mode, argv=tuple(argv), env={**ORCHESTRATOR_ENV, **_patience(options)})
    return Launch(mode=mode, argv=(*command(binary, options), *added))


def _leader(binary: ServerBinary, options: ServerOptions, engine: PublishedEngine, added: Sequence[str]) -> Launch:
    argv: list[str] = [*MPIRUN]
    for rank in range(engine.world_size):
        # Each rank's python backend needs shared memory of its own.
        of_rank = replace(options, shm_prefix=f"{options.shm_prefix}{rank}_")
        argv += [*([":"] if rank else []), "-n", "1", *command(binary, of_rank), *added, NO_AUTO_COMPLETE]
        if rank:
            argv += ["--model-control-mode=explicit", f"--load-model={engine.model}"]
    return Launch(mode="leader", argv=tuple(argv), env=_patience(options))


def _patience(options: ServerOptions) -> dict[str, str]:
    return {KILL_AFTER_VARIABLE: str(options.exit_timeout_s + 1)}
