"""The real tritonserver over a repository of ours, with a python model that echoes."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from scalellm_trt.artefacts.types import TritonModel, TritonTensor
from scalellm_trt.errors import RecipeError, ServerNotReadyError
from scalellm_trt.process import watchdog
from scalellm_trt.triton import binary, ports, repository, repository_check, served, server
from scalellm_trt.triton.client import TextParams, stream
from scalellm_trt.triton.server_command import ServerOptions, new_shm_prefix
from tests.fakes.processes import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
ECHO_SOURCE = PROJECT / "tests" / "fakes" / "echo_model.py"
MAIN = [sys.executable, "-c", "from scalellm_trt.cli import main; main()"]
READY_S = 60.0


def echo_model(name: str, source: Path = ECHO_SOURCE, engine: Path | None = None) -> TritonModel:
    return TritonModel(
        name=name,
        backend="python",
        max_batch_size=1,
        inputs=(
            TritonTensor(name="text_input", data_type="TYPE_STRING", dims=(1,)),
            TritonTensor(name="max_tokens", data_type="TYPE_INT32", dims=(1,)),
            TritonTensor(name="stream", data_type="TYPE_BOOL", dims=(1,), optional=True),
        ),
        outputs=(
            TritonTensor(name="text_output", data_type="TYPE_STRING", dims=(-1,)),
            TritonTensor(name="finish_reason", data_type="TYPE_STRING", dims=(-1,)),
            TritonTensor(name="num_output_tokens", data_type="TYPE_INT32", dims=(-1,)),
        ),
        parameters={"note": 'quotes " and ünicode'},
        default_model_filename="model.py",
        source_files={"model.py": source},
        directories={} if engine is None else {"engine": engine},
        settings={},
    )


def publish(project: Path, model: TritonModel) -> Path:
    """Publish `model` as the service of its name in `project`'s repository, and return the repository."""
    root = project / "triton_repo"
    repository.publish(
        [model],
        service=model.name,
        recipe=f"recipes/{model.name}.yaml",
        owner_digest="x",
        engine_digest="y",
        root=root,
        state_dir=repository.state_dir_for(root, project / "builds" / ".cache" / "repository"),
    )
    return root


def options_for(root: Path) -> ServerOptions:
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    return ServerOptions(
        repository=root,
        shm_prefix=new_shm_prefix(),
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        exit_timeout_s=10,
    )


def group_of(pid: int) -> list[int]:
    """Return every process of a process group."""
    return [process.pid for process in psutil.process_iter() if _group(process.pid) == pid]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.RunningServer]:
    project = tmp_path_factory.mktemp("project")
    root = publish(project, echo_model("echo"))
    with server.start(binary.find(), options_for(root), log=project / "server.log") as started:
        started.wait_ready(READY_S)
        yield started


def answer(running: server.RunningServer, prompt: str, *, max_tokens: int = 100) -> str:
    address = running.endpoint.grpc_address
    declared = served.inspect(address, "echo").inputs
    chunks = stream(address, "echo", prompt, TextParams(max_tokens=max_tokens), declared=declared)
    return "".join(chunk.text for chunk in chunks)


def test_the_server_tells_its_models_and_their_contract(running: server.RunningServer) -> None:
    address = running.endpoint.grpc_address
    assert running.endpoint.model_names == ("echo",)
    model = served.text_model(address, None)
    assert (model.name, model.is_text_model) == ("echo", True)
    assert model.parameters == {"note": 'quotes " and ünicode'}


def test_text_streams_a_chunk_at_a_time(running: server.RunningServer) -> None:
    address = running.endpoint.grpc_address
    declared = served.inspect(address, "echo").inputs
    chunks = list(stream(address, "echo", "ein é 🙂 vier", TextParams(max_tokens=3), declared=declared))
    assert [chunk.text for chunk in chunks] == ["ein ", "é ", "🙂 ", ""]
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "length", None]
    assert [chunk.num_output_tokens for chunk in chunks] == [1, 1, 1, None]


def test_the_models_run_in_our_environment_with_numpy_1(running: server.RunningServer) -> None:
    numpy_version, prefix = answer(running, "packages").split()
    assert numpy_version.startswith("1.")
    assert prefix == sys.prefix


def test_closing_the_stream_cancels_the_request(running: server.RunningServer) -> None:
    address = running.endpoint.grpc_address
    declared = served.inspect(address, "echo").inputs
    chunks = stream(address, "echo", "w " * 2000, TextParams(max_tokens=2000), declared=declared)
    next(chunks)
    chunks.close()
    deadline = time.monotonic() + 30
    while "cancelled after" not in running.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "cancelled after" in running.log.read_text()
    assert answer(running, "still here") == "still here "


def test_an_invalid_argument_is_the_users_to_fix_in_the_models_words(running: server.RunningServer) -> None:
    with pytest.raises(RecipeError, match=r"^max_tokens: 9 is more than 8$"):
        answer(running, "refuse max_tokens: 9 is more than 8")


def test_a_thousand_refused_streams_leave_the_server_up(running: server.RunningServer) -> None:
    for _ in range(1000):
        with pytest.raises(RecipeError, match="is too much"):
            answer(running, "refuse max_tokens: 9 is too much")
    assert answer(running, "still here") == "still here "


def test_a_full_queue_is_not_ready(running: server.RunningServer) -> None:
    with pytest.raises(ServerNotReadyError, match="max_queue_size: 8 requests are waiting"):
        answer(running, "full max_queue_size: 8 requests are waiting")


def test_an_input_that_the_model_does_not_have_is_refused(running: server.RunningServer) -> None:
    chunks = stream(running.endpoint.grpc_address, "echo", "x", TextParams(max_tokens=1, top_k=3), declared=frozenset())
    with pytest.raises(RecipeError, match="top_k"):
        list(chunks)


def test_an_unknown_model_is_answered_with_those_that_there_are(running: server.RunningServer) -> None:
    with pytest.raises(RecipeError, match=r"unknown model: 'ehco'(.|\n)*Models there: echo\."):
        served.text_model(running.endpoint.grpc_address, "ehco")


def test_a_model_that_says_nothing_runs_into_the_time_limit(running: server.RunningServer) -> None:
    chunks = stream(
        running.endpoint.grpc_address, "echo", "a b", TextParams(max_tokens=2), declared=frozenset(), timeout_s=0.0001
    )
    with pytest.raises(ServerNotReadyError, match=r"gave nothing for 0\.0001 s"):
        list(chunks)


def test_a_second_server_on_the_same_port_is_refused_by_name(running: server.RunningServer, tmp_path: Path) -> None:
    taken = running.endpoint.grpc_address
    options = dataclasses.replace(options_for(running._options.repository), grpc_port=int(taken.split(":")[1]))
    with pytest.raises(ServerNotReadyError, match=rf"{taken} \(--grpc-port\) is in use by tritonserver, pid"):
        server.start(binary.find(), options, log=tmp_path / "log")


def test_nobody_there_is_said_plainly() -> None:
    (port,) = ports.free_ports(1)
    with pytest.raises(ServerNotReadyError, match=f"no tritonserver answers at 127.0.0.1:{port}"):
        served.wait_ready(f"127.0.0.1:{port}", 0)
    with pytest.raises(ServerNotReadyError, match="no tritonserver answers"):
        list(stream(f"127.0.0.1:{port}", "echo", "x", TextParams(max_tokens=1)))


def test_stopping_leaves_no_process_and_no_shared_memory(tmp_path: Path) -> None:
    options = options_for(publish(tmp_path, echo_model("echo")))
    with server.start(binary.find(), options, log=tmp_path / "log") as started:
        started.wait_ready(READY_S)
        pids = group_of(started.pid)
        assert len(pids) >= 2, "the server and its stub"
        assert list(watchdog.SHARED_MEMORY.glob(f"{options.shm_prefix}*"))
    assert all(has_ended(pid, within_s=0) for pid in pids)
    assert not list(watchdog.SHARED_MEMORY.glob(f"{options.shm_prefix}*"))


def test_a_model_that_cannot_load_is_named_with_its_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text(
        "class TritonPythonModel:\n"
        "    def initialize(self, args):\n"
        "        raise ValueError('engine/config.json: num_layers is missing')\n"
    )
    publish(tmp_path, echo_model("echo"))
    root = publish(tmp_path, echo_model("bad", source=bad))
    with server.start(binary.find(), options_for(root), log=tmp_path / "log") as started:
        with pytest.raises(ServerNotReadyError) as caught:
            started.wait_ready(READY_S)
        assert caught.value.exit_code == 7
        text = str(caught.value)
        assert "the model bad failed to load: Internal: ValueError: engine/config.json: num_layers is missing" in text
        assert not group_of(started.pid)


@pytest.mark.parametrize("name", [".hidden", "notes"])
def test_tritonserver_really_refuses_what_our_check_refuses(tmp_path: Path, name: str) -> None:
    root = publish(tmp_path, echo_model("echo"))
    (root / "a stray file").touch()
    (root / name).mkdir()
    assert repository_check.problems(root) == [
        f"{name}/ is not a model, and tritonserver refuses to start beside it: move it away"
    ]
    with (
        server.start(binary.find(), options_for(root), log=tmp_path / "log", verify=lambda root: None) as started,
        pytest.raises(
            ServerNotReadyError, match=rf"- the (directory|model) {re.escape(name)} (is not a model|failed to load)"
        ),
    ):
        started.wait_ready(READY_S)


def port_arguments() -> tuple[list[str], str]:
    """Return options for three free ports, and the gRPC address."""
    http_port, grpc_port, metrics_port = ports.free_ports(3)
    arguments = [f"--http-port={http_port}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics_port}"]
    return arguments, f"127.0.0.1:{grpc_port}"


def test_the_script_becomes_the_server_that_it_starts(tmp_path: Path) -> None:
    publish(tmp_path, echo_model("echo"))
    arguments, address = port_arguments()
    command = [str(PROJECT / "scripts" / "tritonserver"), "--model-repository", "triton_repo", *arguments]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PYTHONPATH": str(PROJECT), "XDG_CACHE_HOME": str(tmp_path)}
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log) as script:
        try:
            served.wait_ready(address, READY_S)
            assert psutil.Process(script.pid).name() == "tritonserver"
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((_other_address(), int(address.split(":")[1])), timeout=1)
            chunks = stream(address, "echo", "a b", TextParams(max_tokens=9), declared=frozenset())
            assert "".join(chunk.text for chunk in chunks) == "a b "
        finally:
            script.send_signal(signal.SIGTERM)
        assert script.wait(timeout=30) == 0


def _other_address() -> str:
    """Return an address of this machine other than 127.0.0.1: it must not be listened on."""
    return "127.0.0.2"


def test_serve_and_infer_from_the_command_line(tmp_path: Path) -> None:
    publish(tmp_path, echo_model("echo"))
    arguments, address = port_arguments()
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        [*MAIN, "serve", "--json", *arguments], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as serving:
        infer = [
            *MAIN,
            "infer",
            "ein zwei drei",
            "--url",
            address,
            "--raw",
            "--max-tokens",
            "2",
            "--wait",
            str(READY_S),
        ]
        answered = subprocess.run([*infer, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        body = json.loads(answered.stdout)
        assert (body["text"], body["finish_reason"], body["num_output_tokens"]) == ("ein zwei ", "length", 2)
        refused = subprocess.run(infer[:-5], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert refused.returncode == 6
        assert "no chat template" in refused.stderr
        assert serving.stdout is not None
        endpoint = json.loads(serving.stdout.readline())
        assert endpoint["grpc_address"] == address
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=30) == 0
    assert not group_of(endpoint["pid"])


def test_kill_9_of_serve_leaves_nothing_running(tmp_path: Path) -> None:
    publish(tmp_path, echo_model("echo"))
    arguments, _ = port_arguments()
    with subprocess.Popen(
        [*MAIN, "serve", "--json", "--exit-timeout", "3", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as serving:
        assert serving.stdout is not None
        pids = group_of(json.loads(serving.stdout.readline())["pid"])
        assert len(pids) >= 2
        serving.kill()
    assert all(has_ended(pid, within_s=10) for pid in pids)


def test_a_repository_is_whole_whenever_its_publisher_is_killed(tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    for version in ("1", "2"):
        (engines / version).mkdir(parents=True)
        for index in range(20):
            (engines / version / f"part{index}").write_text(version)
    script = (
        "import itertools, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(PROJECT)!r})\n"
        "from tests.integration.test_triton_server import echo_model, publish\n"
        "print('publishing', flush=True)\n"
        "for version in itertools.cycle('12'):\n"
        f"    publish(Path({str(tmp_path)!r}), echo_model('echo', engine=Path({str(engines)!r}, version)))\n"
    )
    root = publish(tmp_path, echo_model("echo", engine=engines / "1"))
    generator = random.Random(1)
    for _ in range(10):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as publisher:
            assert publisher.stdout is not None
            publisher.stdout.readline()
            time.sleep(generator.uniform(0.02, 0.3))
            publisher.kill()
        parts = {path.read_text() for path in (root / "echo" / "1" / "engine").iterdir()}
        assert len(parts) == 1
        assert len(list((root / "echo" / "1" / "engine").iterdir())) == 20
        repository.recover(root, repository.state_dir_for(root, tmp_path / "builds" / ".cache" / "repository"))
        repository_check.check(root)
