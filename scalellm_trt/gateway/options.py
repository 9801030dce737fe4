"""How a gateway is to be run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """What one gateway process listens on, whom it asks, and what it lets in.

    Attributes:
        url: `host:port` of tritonserver's gRPC.
        host, port: what HTTP listens on.
        num_channels: reused gRPC connections; requests take turns.
        max_body_bytes: longest request body.
        max_prompt_tokens: longest prompt; None leaves it to the engine's own limit.
        default_max_tokens: new tokens of a chat that does not say how many: an engine that reserves prompt + max_tokens
            at admission would be starved by requests that ask for all it has.
        api_key: what `Authorization: Bearer` must hold; None lets everybody in.
    """

    url: str = "127.0.0.1:8001"
    host: str = "127.0.0.1"
    port: int = 2345
    num_channels: int = 4
    max_body_bytes: int = 4 * 1024 * 1024
    max_prompt_tokens: int | None = None
    default_max_tokens: int = 512
    api_key: str | None = None
