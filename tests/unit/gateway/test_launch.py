"""A gateway's beginning: before its server, with what is missing, and without heavy company."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from scalellm_trt.gateway import channels, http2_upstream
from scalellm_trt.triton import ports
from tests.fakes.gateways import END_ID, MODEL, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.integration
@pytest.mark.parametrize("upstream", ["http2", "grpc"])
def test_a_gateway_is_ready_soon_after_its_server(tmp_path: Path, upstream: str) -> None:
    (port,) = ports.free_ports(1)
    options = ("--upstream", upstream)
    with running(write_repository(tmp_path / "r"), f"127.0.0.1:{port}", tmp_path / "log", *options) as gateway:
        # Long enough for its attempts to connect to have become rare.
        until = time.monotonic() + 4
        while time.monotonic() < until:
            assert httpx.get(f"{gateway.url}/health/ready").status_code == 503
            time.sleep(0.2)
        server = TokenServer(MODEL, END_ID, port)
        try:
            deadline = time.monotonic() + 20
            while httpx.get(f"{gateway.url}/health/ready").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            server.close()


def test_no_pause_between_two_attempts_to_connect_is_longer_than_a_second() -> None:
    """Else a gateway could not be ready within a second of its server; both vary their pauses by a fifth."""
    assert 1.2 * http2_upstream.MAX_BACKOFF_S < 1
    assert 1.2 * dict(channels.OPTIONS)["grpc.max_reconnect_backoff_ms"] < 1000


@pytest.mark.integration
def test_a_running_gateway_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "import scalellm_trt.gateway.launch, scalellm_trt.gateway.config_file, scalellm_trt.gateway.served\n"
        "import scalellm_trt.gateway.http2_upstream, scalellm_trt.cli.gateway\n"
        "print({'torch', 'transformers', 'openvino', 'opentelemetry', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.integration
def test_a_wrong_file_is_said_before_anybody_connects(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "repository")
    (tmp_path / "no.pem").write_text("rubbish")
    config = tmp_path / "gateway.yaml"
    argv = [sys.executable, "-m", "scalellm_trt", "gateway", "--repository", str(repository), "--port", "0"]
    for text, message in (
        ("listen: {tls_certificate: no.pem, tls_key: no.pem}", "listen.tls_certificate: "),
        ("server: {tls: true, ca: no.pem}", f"server.ca: {tmp_path / 'no.pem'} is no PEM file"),
        ("keys: {file: none}", f"{tmp_path / 'none'}: cannot be read: No such file or directory"),
    ):
        config.write_text(text + "\n")
        done = subprocess.run([*argv, "--config", str(config)], capture_output=True, text=True, check=False, timeout=20)
        assert (done.returncode, message in done.stderr, done.stdout) == (2, True, ""), done.stderr
