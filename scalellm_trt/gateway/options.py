"""How a gateway is to be run. The defaults stand here, once: command line and configuration file take them over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.gateway.tenants.tenant import Tenant

UpstreamKind = Literal["http2", "grpc"]
PolicyName = Literal["least_tokens", "prefix", "round_robin", "weighted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenTls:
    """What clients see when they connect with TLS: PEM files of a certificate chain and of its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """How to speak TLS to the server.

    Attributes:
        ca: PEM file of the authorities that may vouch for the server; None takes gRPC's own list of public ones.
        certificate, key: PEM files that say who we are, for a server that asks; both or none.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """One tritonserver.

    Attributes:
        name: what log and metrics call it.
        url: `host:port` of its gRPC.
        weight: how much of the traffic it can take, against the others.
        group: servers of the same shape, for `GroupOptions`.
    """

    name: str
    url: str
    weight: float = 1.0
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """Which group of servers gets the traffic.

    Attributes:
        few: the group up to `threshold` concurrent requests.
        many: the group above.
        threshold: concurrent requests at all servers.
        hysteresis: so many fewer must it be before the traffic goes back.
    """

    few: str
    many: str
    threshold: int
    hysteresis: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """How requests are shared out over servers, and what becomes of those of a broken one.

    Attributes:
        policy: how one of the good servers is chosen.
        prefix_block_tokens: `prefix` compares beginnings in blocks of so many tokens.
        prefix_load_factor: `prefix` leaves a server that has more than so many times the mean load.
        groups: None looks at no groups.
        max_attempts: servers that one request is sent to at most.
        wait_s: how long a request that has lost its server waits for a good one.
        continue_sampled: sampled answers are continued elsewhere, too, with other tokens than they would have had.
        probe_interval_s, probe_timeout_s: each server is asked so often whether it is ready, and has so long to answer.
        max_failed_probes: so many in a row, and what the server is working on is given up.
        silent_after_s: one is enough where nothing at all has come from the server for so long.
    """

    policy: PolicyName = "least_tokens"
    prefix_block_tokens: int = 32
    prefix_load_factor: float = 1.25
    groups: GroupOptions | None = None
    max_attempts: int = 3
    wait_s: float = 10.0
    continue_sampled: bool = False
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 1.0
    max_failed_probes: int = 3
    silent_after_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryOptions:
    """Where servers are looked up while the gateway runs; none of the three leaves those of the configuration.

    Attributes:
        file: YAML with the section `servers`.
        dns: `host:port`: a server at each of the host's addresses.
        registry: a URL that answers the section `servers` as JSON.
        interval_s: how often it is looked at.
    """

    file: Path | None = None
    dns: str | None = None
    registry: str | None = None
    interval_s: float = 2.0


DEFAULT_URL: Final = "127.0.0.1:8001"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """What one gateway process listens on, whom it asks, and what it lets in.

    Attributes:
        servers: the tritonservers; none only where they are looked up.
        routing: how requests are shared out over them.
        discovery: where other servers are looked up.
        server_tls: None speaks clear text to the servers.
        upstream: how tritonserver is spoken to: HTTP/2 of our own, or the gRPC library; None is `http2` in clear text
            and `grpc` with TLS.
        num_channels: reused gRPC connections to each server; requests take turns.
        host, port: what HTTP listens on.
        listen_tls: None listens in clear text.
        has_admin: whether there is an admin listener, with the operator's page.
        admin_host: what it listens on.
        admin_port: None is the port after `port`, and a free one where that is 0.
        admin_key: what `Authorization: Bearer` must hold there; None asks for nothing.
        api_key: what `Authorization: Bearer` must hold.
        key_file: hashed keys, any of which is good too; None for both lets everybody in.
        max_body_bytes: longest request body.
        max_prompt_tokens: longest prompt; None leaves it to the engine's own limit.
        default_max_tokens: new tokens of a chat that does not say how many: an engine that reserves prompt + max_tokens
            at admission would be starved by requests that ask for all it has.
        max_streams: generations at the server at once, of one worker.
        max_queue_size: requests that may wait for their turn, of one worker.
        queue_timeout_s: how long one may wait.
        max_connections: open client connections of one worker.
        max_header_bytes: longest request line with its headers.
        header_timeout_s: from a request's first byte to the end of its headers.
        body_timeout_s: from there to the end of its body.
        write_timeout_s: how long a client may read nothing of what waits for it.
        idle_timeout_s: how long a connection may stand without a request.
        shutdown_timeout_s: what open answers get to end; what is left is cancelled, on the server too.
        otlp_endpoint: where OpenTelemetry's spans are sent; None makes none.
        tenants: who may have what; none lets everybody have everything.
        ledger_directory: where the usage of each request is kept; None keeps none.
    """

    servers: tuple[ServerOptions, ...] = (ServerOptions(name=DEFAULT_URL, url=DEFAULT_URL),)
    routing: RoutingOptions = RoutingOptions()
    discovery: DiscoveryOptions = DiscoveryOptions()
    server_tls: ServerTls | None = None
    upstream: UpstreamKind | None = None
    num_channels: int = 4
    host: str = "127.0.0.1"
    port: int = 2345
    listen_tls: ListenTls | None = None
    has_admin: bool = True
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    admin_key: str | None = None
    api_key: str | None = None
    key_file: Path | None = None
    max_body_bytes: int = 4 * 1024 * 1024
    max_prompt_tokens: int | None = None
    default_max_tokens: int = 512
    max_streams: int = 512
    max_queue_size: int = 512
    queue_timeout_s: float = 30.0
    max_connections: int = 4096
    max_header_bytes: int = 32 * 1024
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 60.0
    idle_timeout_s: float = 60.0
    shutdown_timeout_s: float = 10.0
    otlp_endpoint: str | None = None
    tenants: tuple[Tenant, ...] = ()
    ledger_directory: Path | None = None

    @property
    def needs_key(self) -> bool:
        """Whether clients need an API key."""
        return self.api_key is not None or self.key_file is not None
