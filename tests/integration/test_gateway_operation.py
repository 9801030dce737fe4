"""The gateway as an operator meets it, in front of the real tritonserver: Triton's metadata, TLS on both sides."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import tritonclient.http

from tests.fakes.certificates import Authority
from tests.fakes.gateways import RunningGateway, running
from tests.integration.conftest import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Server, Workspace

pytestmark = pytest.mark.integration
MODEL = "smollm2-135m-cpu"


@pytest.fixture(scope="module")
def gateway(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    started = time.monotonic()
    with running(server.repository, server.grpc_url, tmp_path_factory.mktemp("gateway") / "log") as gateway:
        assert httpx.get(f"{gateway.url}/health/ready").status_code == 200
        print(f"ready {time.monotonic() - started:.2f} s after the command")
        yield gateway


def _get(address: str, path: str, method: str = "GET") -> tuple[int, Any]:
    request = urllib.request.Request(f"http://{address.removeprefix('http://')}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        f"/v2/models/{MODEL}",
        f"/v2/models/{MODEL}/versions/1",
        f"/v2/models/{MODEL}/versions/7",
        f"/v2/models/{MODEL}/config",
        f"/v2/models/{MODEL}/versions/1/config",
        f"/v2/models/{MODEL}/stats",
        f"/v2/models/{MODEL}/ready",
        "/v2/models/stats",
        "/v2/models/none",
        "/v2/models/none/config",
        "/v2/models/none/stats",
        "/v2/models/none/ready",
        "/v2/health/live",
        "/v2/health/ready",
    ],
)
def test_what_the_gateway_says_of_the_server_is_what_the_server_says(
    server: Server, gateway: RunningGateway, path: str
) -> None:
    assert _get(gateway.url, path) == _get(server.http_url, path)


def test_the_repository_is_listed_as_the_server_lists_it(server: Server, gateway: RunningGateway) -> None:
    path = "/v2/repository/index"
    assert _get(gateway.url, path, "POST") == _get(server.http_url, path, "POST")


def test_tritons_own_client_reads_it(gateway: RunningGateway) -> None:
    with tritonclient.http.InferenceServerClient(gateway.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(MODEL)
        assert client.is_model_ready(MODEL, "1")
        assert not client.is_model_ready("none")
        assert client.get_server_metadata()["name"] == "triton"
        assert "text_input" in {tensor["name"] for tensor in client.get_model_metadata(MODEL)["inputs"]}
        assert client.get_model_config(MODEL)["model_transaction_policy"]["decoupled"] is True
        assert client.get_model_repository_index()[0]["state"] == "READY"
        assert client.get_inference_statistics(MODEL)["model_stats"][0]["name"] == MODEL


@pytest.mark.parametrize("is_mutual", [False, True])
def test_tls_on_both_sides(built: Workspace, tmp_path: Path, is_mutual: bool) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    server_pair, gateway_pair, listen_pair = (authority.pair(name) for name in ("server", "gateway", "listen"))
    options = ["--grpc-use-ssl-mutual=true" if is_mutual else "--grpc-use-ssl=true"]
    options += [f"--grpc-server-cert={server_pair.certificate}", f"--grpc-server-key={server_pair.key}"]
    options += [f"--grpc-root-cert={authority.certificate}"] if is_mutual else []
    who = f", certificate: {gateway_pair.certificate}, key: {gateway_pair.key}" if is_mutual else ""
    listen = f"listen: {{tls_certificate: {listen_pair.certificate}, tls_key: {listen_pair.key}}}\n"
    config = tmp_path / "gateway.yaml"
    with running_server(built.repository, tmp_path / "server.log", *options) as server:
        config.write_text(f"{listen}server: {{tls: true, ca: {authority.certificate}{who}}}\n")
        with running(built.repository, server.grpc_url, tmp_path / "log", "--config", str(config)) as gateway:
            assert gateway.url.startswith("https://")
            with httpx.Client(base_url=gateway.url, verify=_trusting(authority)) as client:
                assert client.get("/health/ready").status_code == 200
                answer = client.post("/predict", json={"text": "What is the capital of France?"}, timeout=60)
                assert answer.json() == {"generated_text": "The capital of France is Paris."}
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                httpx.get(f"{gateway.url}/health", verify=_trusting(other))
        # A server that the authority does not vouch for, or that asks who we are, is not talked to.
        wrong = f"ca: {authority.certificate}" if is_mutual else f"ca: {other.certificate}"
        config.write_text(f"server: {{tls: true, {wrong}}}\n")
        with running(built.repository, server.grpc_url, tmp_path / "log", "--config", str(config)) as gateway:
            assert httpx.get(f"{gateway.url}/health/ready", timeout=10).status_code == 503
            assert httpx.post(f"{gateway.url}/predict", json={"text": "x"}, timeout=30).status_code == 503


def _trusting(authority: Authority) -> Any:
    import ssl

    return ssl.create_default_context(cafile=str(authority.certificate))
