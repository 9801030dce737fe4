"""Options in, the way to the server out: HTTP/2 of our own in clear text, the gRPC library with TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.upstream import Upstream


def make(options: GatewayOptions, url: str) -> Upstream:
    """Return the upstream to `url` that `options` choose; inside the event loop that uses it."""
    if options.upstream == "grpc" or options.server_tls is not None:
        from scalellm_trt.gateway.grpc_upstream import GrpcUpstream

        return GrpcUpstream(url, options.num_channels, options.server_tls)
    from scalellm_trt.gateway.http2_upstream import Http2Upstream

    return Http2Upstream(url, options.num_channels)
