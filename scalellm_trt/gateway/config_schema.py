"""What gateway.yaml may say: keys, types, bounds and descriptions. Messages, reference and JSON schema follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from scalellm_trt.gateway import api_keys
from scalellm_trt.gateway.fleet.config_schema import NAME_HINT, RoutingSection, ServerName, ServerSection
from scalellm_trt.gateway.options import DEFAULT_URL, GatewayOptions, UpstreamKind
from scalellm_trt.gateway.tenants.config_schema import LedgerSection, TenantName, TenantSection

if TYPE_CHECKING:
    from pydantic.config import JsonDict

LogLevel = Literal["debug", "info", "warning"]
DEFAULTS: Final = GatewayOptions()
MAX_COUNT: Final = 2**31 - 1
HOST_PATTERN: Final = r"^[0-9A-Fa-f.:]+$|^localhost$"


def _allowed(phrase: str) -> JsonDict:
    """Say in words what a pattern takes, under the name by which editors show it."""
    return {"patternErrorMessage": phrase}


FileName = Annotated[str, Field(min_length=1, json_schema_extra=_allowed("a path, relative to this file"))]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT, strict=True)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Listen(_Section):
    """Where clients connect."""

    host: str = Field(
        default=DEFAULTS.host,
        pattern=HOST_PATTERN,
        json_schema_extra=_allowed("an IP address of this machine"),
        description="what to listen on; 0.0.0.0 or :: opens the gateway to the network",
    )
    port: int = Field(default=DEFAULTS.port, ge=0, le=65535, strict=True, description="TCP port; 0 takes a free one")
    tls_certificate: FileName | None = Field(
        default=None, description="PEM file of the certificate chain: clients connect with https; null = clear text"
    )
    tls_key: FileName | None = Field(default=None, description="PEM file of its private key")


class Admin(_Section):
    """The operator's page, at /ui of a listener of its own."""

    enabled: bool = Field(default=DEFAULTS.has_admin, description="whether there is such a listener")
    host: str = Field(
        default=DEFAULTS.admin_host,
        pattern=HOST_PATTERN,
        json_schema_extra=_allowed("an IP address of this machine"),
        description="what to listen on; another one than loopback needs SCALELLM_ADMIN_KEY in the environment",
    )
    port: int | None = Field(
        default=DEFAULTS.admin_port,
        ge=0,
        le=65535,
        strict=True,
        description="TCP port; 0 takes a free one; null = the one after listen.port, a free one where that is 0",
    )


class Server(_Section):
    """The tritonserver that answers."""

    url: str = Field(
        default=DEFAULT_URL,
        pattern=r"^[^\s/]+:[0-9]{1,5}$",
        json_schema_extra=_allowed("HOST:PORT of the server's gRPC, without a scheme"),
        description="gRPC address of the server",
    )
    upstream: UpstreamKind | None = Field(
        default=None,
        description="how it is spoken to: http2, our own client for clear text, or grpc, the library, which costs more "
        "for each token; null = http2, with TLS grpc",
    )
    channels: int = Field(
        default=DEFAULTS.num_channels, ge=1, le=64, strict=True, description="reused connections; requests take turns"
    )
    tls: bool = Field(default=False, description="speak TLS to the server (its --grpc-use-ssl)")
    ca: FileName | None = Field(
        default=None, description="PEM file of the authorities that may vouch for the server; null = the public ones"
    )
    certificate: FileName | None = Field(
        default=None, description="PEM file that says who the gateway is, for a server that asks (mutual TLS)"
    )
    key: FileName | None = Field(default=None, description="PEM file of its private key")


class Discovery(_Section):
    """Where servers are looked up while the gateway runs, in place of those that stand here; one of the three."""

    file: FileName | None = Field(
        default=None, description="YAML file with the section `servers`, looked at again and again; replace it by `mv`"
    )
    dns: str | None = Field(
        default=None,
        pattern=r"^[^\s/]+:[0-9]{1,5}$",
        json_schema_extra=_allowed("HOST:PORT"),
        description="a server at each address of this host, such as a headless service of Kubernetes",
    )
    registry: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        json_schema_extra=_allowed("a URL, such as http://127.0.0.1:8500/servers"),
        description='a URL that answers {"servers": {NAME: {"url": "HOST:PORT"}}}',
    )
    interval_s: Seconds = Field(
        default=DEFAULTS.discovery.interval_s, description="seconds between two looks; what cannot be read is left out"
    )


class Keys(_Section):
    """Who may ask."""

    file: FileName | None = Field(
        default=None,
        description="hashed API keys, made by `scalellm-trt key add`; read again when it changes; null = only "
        "SCALELLM_API_KEY, and where that is not set either everybody may ask",
    )


class ConfigLimits(_Section):
    """What is let in. Those of streams, queue and connections hold for each worker."""

    max_body_bytes: Count = Field(default=DEFAULTS.max_body_bytes, description="longest request body; else 413")
    max_prompt_tokens: Count | None = Field(
        default=None, description="longest prompt; else 400; null = the engine's own limit"
    )
    default_max_tokens: Count = Field(
        default=DEFAULTS.default_max_tokens, description="new tokens of a chat that does not say how many it wants"
    )
    max_streams: Count = Field(default=DEFAULTS.max_streams, description="requests at the server at once; more wait")
    max_queue_size: int = Field(
        default=DEFAULTS.max_queue_size,
        ge=0,
        le=MAX_COUNT,
        strict=True,
        description="requests that may wait for their turn; else 429",
    )
    queue_timeout_s: Seconds = Field(
        default=DEFAULTS.queue_timeout_s, description="seconds that a request may wait for its turn; else 503"
    )
    max_connections: Count = Field(
        default=DEFAULTS.max_connections, description="open connections; one more is answered with 503 and closed"
    )
    max_header_bytes: int = Field(
        default=DEFAULTS.max_header_bytes,
        ge=256,
        le=2**20,
        strict=True,
        description="longest request line with its headers; else 431",
    )
    header_timeout_s: Seconds = Field(
        default=DEFAULTS.header_timeout_s, description="seconds that a request's headers may take; else 408"
    )
    body_timeout_s: Seconds = Field(
        default=DEFAULTS.body_timeout_s, description="seconds that a request's body may take; else 408"
    )
    write_timeout_s: Seconds = Field(
        default=DEFAULTS.write_timeout_s,
        description="seconds that a client may read nothing while an answer waits for it; then it is cut off",
    )
    idle_timeout_s: Seconds = Field(
        default=DEFAULTS.idle_timeout_s, description="seconds that a connection may stand without a request"
    )
    shutdown_timeout_s: Seconds = Field(
        default=DEFAULTS.shutdown_timeout_s,
        description="seconds that open answers get when the gateway is stopped; then they are cancelled",
    )


class Log(_Section):
    """JSON lines on stderr."""

    level: LogLevel = Field(
        default="info", description="info: a line for each request; debug: probes too; warning: only what goes wrong"
    )


class Tracing(_Section):
    """OpenTelemetry spans of each request, from HTTP to gRPC; the extra `otel` brings what they need."""

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        json_schema_extra=_allowed("a URL, such as http://127.0.0.1:4318/v1/traces"),
        description="where spans are sent, by OTLP over HTTP; null = none are made. OTEL_* variables hold as usual",
    )


class GatewayConfig(_Section):
    """One gateway."""

    # Bounds instead of Literal[1], which would take true and 1.0.
    schema_version: int = Field(
        default=1, alias="schema", ge=1, le=1, strict=True, description="version of this format"
    )
    repository: FileName = Field(
        default="triton_repo", description="where tokenizers and chat templates are read: the repository that is served"
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=256,
        strict=True,
        description="processes that share the port; one per core that the gateway may use",
    )
    listen: Listen = Field(default_factory=Listen)
    admin: Admin = Field(default_factory=Admin)
    server: Server = Field(default_factory=Server)
    servers: dict[ServerName, ServerSection] = Field(
        default_factory=dict,
        json_schema_extra={"additionalProperties": False, "patternErrorMessage": NAME_HINT},
        description="Several tritonservers, by name, in place of `server.url`.",
    )
    routing: RoutingSection = Field(default_factory=RoutingSection)
    discovery: Discovery = Field(default_factory=Discovery)
    keys: Keys = Field(default_factory=Keys)
    tenants: dict[TenantName, TenantSection] = Field(
        default_factory=dict,
        json_schema_extra={
            "additionalProperties": False,
            "patternErrorMessage": api_keys.NAME_HINT,
        },
        description="Who may have what, by name; `default` is everybody whose key belongs to no other.",
    )
    ledger: LedgerSection = Field(default_factory=LedgerSection)
    limits: ConfigLimits = Field(default_factory=ConfigLimits)
    tracing: Tracing = Field(default_factory=Tracing)
    log: Log = Field(default_factory=Log)
