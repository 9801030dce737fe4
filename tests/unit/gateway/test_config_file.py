from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import config_file, listening
from scalellm_trt.gateway.config_reference import gateway_json_schema
from scalellm_trt.gateway.config_schema import GatewayConfig
from scalellm_trt.gateway.options import (
    DiscoveryOptions,
    GatewayOptions,
    GroupOptions,
    ListenTls,
    ServerOptions,
    ServerTls,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.gateway.config_file import Setup
    from scalellm_trt.recipe.tree import KeyPath, Scalar


def _load(directory: Path, text: str, overrides: Mapping[KeyPath, Scalar] | None = None) -> Setup:
    file = directory / "gateway.yaml"
    file.write_text(text)
    return config_file.load(file, overrides or {}, None)


def test_without_a_file_everything_has_its_default() -> None:
    setup = config_file.load(None, {}, None)
    assert setup.options == GatewayOptions()
    assert (str(setup.repository), setup.log_level) == ("triton_repo", "info")


def test_every_limit_of_the_file_is_one_of_the_options() -> None:
    assert set(GatewayConfig().limits.model_dump()) <= set(GatewayOptions.__slots__)


def test_values_come_from_the_file_and_paths_count_from_it(tmp_path: Path) -> None:
    text = """\
schema: 1
repository: repo
listen: {host: 0.0.0.0, port: 8443, tls_certificate: a.pem, tls_key: /etc/a.key}
server: {url: "gpu-1:8001", channels: 2, tls: true, ca: ca.pem, certificate: me.pem, key: me.key}
keys: {file: gateway.keys}
limits: {max_streams: 7, queue_timeout_s: 2, max_prompt_tokens: 100}
log: {level: debug}
"""
    setup = _load(tmp_path, text)
    assert setup.repository == tmp_path / "repo"
    assert setup.log_level == "debug"
    options = setup.options
    assert (options.host, options.port, options.servers[0].url, options.num_channels) == (
        "0.0.0.0",
        8443,
        "gpu-1:8001",
        2,
    )
    assert options.listen_tls is not None
    assert options.listen_tls.certificate == tmp_path / "a.pem"
    assert str(options.listen_tls.key) == "/etc/a.key"
    assert options.server_tls == ServerTls(
        ca=tmp_path / "ca.pem", certificate=tmp_path / "me.pem", key=tmp_path / "me.key"
    )
    assert options.key_file == tmp_path / "gateway.keys"
    assert (options.max_streams, options.queue_timeout_s, options.max_prompt_tokens) == (7, 2, 100)


def test_the_command_line_wins_and_its_paths_stay(tmp_path: Path) -> None:
    overrides: dict[KeyPath, Scalar] = {("listen", "port"): 1, ("repository",): "here"}
    setup = _load(tmp_path, "repository: repo\nlisten:\n  port: 2\n  host: 127.0.0.2\n", overrides)
    assert (setup.options.port, setup.options.host) == (1, "127.0.0.2")
    assert str(setup.repository) == "here"


def test_servers_and_routing_are_taken_over(tmp_path: Path) -> None:
    text = """
servers:
  big: {url: "gpu-1:8001", weight: 8, group: tp8}
  small: {url: "gpu-2:8001", group: replicas}
server: {tls: true, ca: ca.pem}
routing:
  policy: prefix
  prefix_load_factor: 1.5
  continue_sampled: true
  groups: {few: tp8, many: replicas, threshold: 20, hysteresis: 5}
"""
    options = _load(tmp_path, text).options
    assert options.servers == (
        ServerOptions(name="big", url="gpu-1:8001", weight=8.0, group="tp8"),
        ServerOptions(name="small", url="gpu-2:8001", group="replicas"),
    )
    assert options.server_tls is not None
    assert (options.routing.policy, options.routing.prefix_load_factor) == ("prefix", 1.5)
    assert options.routing.continue_sampled
    assert options.routing.groups == GroupOptions(few="tp8", many="replicas", threshold=20, hysteresis=5)


def test_servers_that_are_looked_up_need_not_be_named(tmp_path: Path) -> None:
    options = _load(tmp_path, "discovery: {file: servers.yaml, interval_s: 5}\n").options
    assert options.servers == ()
    assert options.discovery == DiscoveryOptions(file=tmp_path / "servers.yaml", interval_s=5.0)


def test_a_half_given_pair_of_the_command_line_has_no_line() -> None:
    with pytest.raises(RecipeError) as error:
        config_file.load(None, {("listen", "tls_key"): "a.key"}, None)
    assert str(error.value).splitlines()[0] == "listen.tls_key: needs listen.tls_certificate"


TWO = "servers:\n  a: {url: 'h:1', group: tp}\n"


@pytest.mark.parametrize(
    ("text", "where", "message", "hint"),
    [
        ("listen:\n  prt: 1\n", 2, "listen.prt: is not a key of listen", "Did you mean port?"),
        ("port: 1\n", 1, "port: is not a key of a gateway's configuration", "write port below listen or admin"),
        ("servers: 2\n", 1, "servers: found 2, expected a mapping; its names are 1 to 63", "Indent"),
        ("servers:\n  a: {url: h}\n", 2, "servers.a.url: found 'h', expected HOST:PORT", ""),
        ("servers:\n  a: {weight: 2}\n", 2, "servers.a.url: is missing", "HOST:PORT"),
        ("servers:\n  a: {url: 'h:1'}\nserver:\n  url: h:2\n", 4, "server.url: stands beside servers", "Write one"),
        (TWO + "  b: {url: 'h:1'}\n", 3, "servers.b.url: is also that of server a", "a weight"),
        (TWO + "routing: {groups: {few: tp}}\n", 3, "routing.groups.few: needs routing.groups.many", "Write both"),
        (TWO + "routing: {policy: fastest}\n", 3, "routing.policy: found 'fastest', expected one of least_to", ""),
        ("routing: {prefix_load_factor: 0.5}\n", 1, "routing.prefix_load_factor: found 0.5, expected a number", "1.25"),
        ("discovery: {dns: 'a:1', file: a.yaml}\n", 1, "discovery.dns: stands beside discovery.file", "one place"),
        ("listen:\n  port: 70000\n", 2, "listen.port: found 70000, expected a whole number from 0 to 65535", "default"),
        ("listen:\n  host: example.org\n", 2, "listen.host: found 'example.org', expected an IP address", "default"),
        ("server:\n  url: http://a:1\n", 2, "server.url: found 'http://a:1', expected HOST:PORT", "default"),
        ("limits:\n  queue_timeout_s: 0\n", 2, "limits.queue_timeout_s: found 0, expected a number above 0", "30.0"),
        ("log:\n  level: inf\n", 2, "log.level: found 'inf', expected one of debug, info, warning", "Nearest: info"),
        ("server:\n  ca: a.pem\n", 2, "server.ca: is for TLS, which server.tls does not ask for", "server.tls: true"),
        ("server:\n  tls: true\n  upstream: http2\n", 3, "server.upstream: speaks clear text only", "Write grpc"),
        ("server:\n  tls: true\n  key: a\n", 3, "server.key: needs server.certificate", "Write both"),
        ("listen:\n  port: 1\n  port: 2\n", 3, "listen.port: is written twice", "Remove one of them."),
        ("- a\n", 1, "holds a list instead of keys", "listen, server, limits"),
    ],
)
def test_a_problem_says_where_what_and_how(tmp_path: Path, text: str, where: int, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        _load(tmp_path, text)
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{tmp_path / 'gateway.yaml'}:{where}: {message}")
    assert hint in second


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        _load(tmp_path, "listen:\n  port: x\nlimits:\n  max_stream: 1\nfoo: 1\n")
    assert [problem.line for problem in error.value.problems] == [2, 4, 5]


def test_a_missing_file_names_the_reference(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no\.yaml: does not exist\n.*docs/reference/gateway\.md"):
        config_file.load(tmp_path / "no.yaml", {}, None)


def test_editors_check_with_the_schema() -> None:
    validator = jsonschema.Draft7Validator(json.loads(gateway_json_schema()))
    assert validator.is_valid({"listen": {"port": 80}, "limits": {"queue_timeout_s": 0.5}})
    for wrong in ({"listen": {"prt": 80}}, {"limits": {"max_streams": 0}}, {"log": {"level": "loud"}}, {"foo": 1}):
        assert not validator.is_valid(wrong)


def test_tls_of_the_listener_needs_both_files(tmp_path: Path) -> None:
    setup = _load(tmp_path, "listen:\n  tls_certificate: a\n  tls_key: b\n")
    assert setup.options.listen_tls == ListenTls(certificate=tmp_path / "a", key=tmp_path / "b")


def test_the_admin_listener_is_on_loopback_unless_there_is_a_key_for_it(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("admin: {host: 0.0.0.0, port: 7000}\n")
    with pytest.raises(RecipeError) as error:
        config_file.load(file, {}, "a client's key", None)
    assert str(error.value).startswith(f"{file}:1: admin.host: 0.0.0.0 opens the operator's page to the network")
    assert "SCALELLM_ADMIN_KEY" in str(error.value)
    options = config_file.load(file, {}, None, "opensesame").options
    assert (options.admin_host, options.admin_port, options.admin_key) == ("0.0.0.0", 7000, "opensesame")
    file.write_text("admin: {host: 0.0.0.0, enabled: false}\n")
    assert config_file.load(file, {}, None, None).options.has_admin is False
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert config_file.load(None, {("admin", "host"): host}, None).options.admin_host == host


def test_operators_and_clients_have_ports_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        _load(tmp_path, "listen: {port: 2345}\nadmin: {port: 2345}\n")
    assert ":2: admin.port: 2345 is listen.port too" in str(error.value)
    for port, expected in ((2345, 2346), (65535, 65534), (0, 0)):
        assert listening.admin_port(GatewayOptions(port=port)) == expected
    assert listening.admin_port(GatewayOptions(port=2345, admin_port=9)) == 9
