"""Run the gateway's HTTP server on a socket, in this process, until it is told to stop."""

from __future__ import annotations

import contextlib
import gc
import math
import os
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.app import make_app
from scalellm_trt.gateway.http_protocol import limited

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Mapping

    from scalellm_trt.gateway.fleet.server_load import SharedLoads
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.reloading import Reloads
    from scalellm_trt.gateway.served import GatewayModel
    from scalellm_trt.gateway.tenants.tenancy import Tenancy

GC_THRESHOLD: Final = 10_000
"""Objects more than before between two collections of the youngest; Python's own is 700, which is a few tokens."""


def serve(
    models: Mapping[str, GatewayModel],
    options: GatewayOptions,
    listener: socket.socket,
    admin: socket.socket | None,
    context: ssl.SSLContext | None,
    tenancy: Tenancy,
    worker: int = 0,
    reloads: Reloads | None = None,
    loads: SharedLoads | None = None,
) -> None:
    """Serve on sockets that listen, until SIGINT or SIGTERM; as `worker` of those that share `tenancy`.

    `admin` is the admin listener's socket, if there is one; `reloads` reads the configuration again, `loads`
    is what all workers do at each server.

    Raises:
        KeyboardInterrupt: after the end that a signal asked for.
    """
    import uvicorn

    admin_port = None if admin is None else admin.getsockname()[1]
    config = uvicorn.Config(
        make_app(models, options, tenancy, worker, admin_port, reloads, loads),
        loop="uvloop",
        http=limited(options, admin_port),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=math.ceil(options.idle_timeout_s),
        timeout_graceful_shutdown=math.ceil(options.shutdown_timeout_s),
        ssl_context_factory=None if context is None else lambda config, default: context,
    )
    _interrupt_nobody()
    # What is there now stays: no collection need look at it again. A token leaves no cycles, a request few.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    uvicorn.Server(config).run(sockets=[listener] if admin is None else [listener, admin])


def _interrupt_nobody() -> None:
    """Let whoever is at work finish when something comes for this process.

    A server on the same machine that is interrupted after each token to have it read makes half as many of them
    (docs/benchmarks.md). Where a processor is free nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError):  # forbidden in some sandboxes; not there outside Linux
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
