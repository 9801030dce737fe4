"""Run a gateway in this process, or in several that share the port; what is wrong is said before anybody connects."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalellm_trt.errors import ToolchainError
from scalellm_trt.gateway import channels, listening, reload_admin, request_log, server
from scalellm_trt.gateway.api_keys import KeyRing
from scalellm_trt.gateway.fleet.server_load import SharedLoads
from scalellm_trt.gateway.reloading import Reloads
from scalellm_trt.gateway.tenants.tenancy import Tenancy, warn_of_models
from scalellm_trt.gateway.workers import Workers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from socket import socket

    from scalellm_trt.gateway.config_file import Setup
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.served import GatewayModel
    from scalellm_trt.gateway.workers import Ready

    OnListening = Callable[[str, str | None], None]
    """Called with the gateway's URL, and with that of the operator's page where there is one."""


def run(models: Mapping[str, GatewayModel], setup: Setup, on_listening: OnListening, load: Callable[[], Setup]) -> None:
    """Serve until SIGINT or SIGTERM; `on_listening` is told once connections are taken.

    `load` reads the configuration again, when an operator asks for it.

    Raises:
        RecipeError: the address cannot be listened on, or a certificate, the key file or the ledger is not usable.
        KeyboardInterrupt: after the end that a signal asked for.
        StageError: a worker does not come up.
        ToolchainError: spans are asked for, and the extra `otel` is not installed.
    """
    options = setup.options
    request_log.set_up(setup.log_level)
    context = None if options.listen_tls is None else listening.tls_context(options.listen_tls)
    channels.check(options.server_tls)
    KeyRing(options.api_key, options.key_file)
    _check_tracing(options)
    tenancy = Tenancy(options, setup.num_workers)
    warn_of_models(options.tenants, models)
    if setup.num_workers == 1:
        with listening.listen(options) as listener, listening.listen_admin(options) as admin:
            on_listening(listening.address(options, listener), listening.page_address(options, admin))
            reloads = Reloads(load, setup, tenancy, None, models)
            server.serve(models, options, listener, admin, context, tenancy, reloads=reloads)
    else:
        _run_workers(models, setup, context, tenancy, on_listening, load)


def _run_workers(
    models: Mapping[str, GatewayModel],
    setup: Setup,
    context: ssl.SSLContext | None,
    tenancy: Tenancy,
    on_listening: OnListening,
    load: Callable[[], Setup],
) -> None:
    options = setup.options
    # Another gateway there would share the port unseen: only a socket that shares with nobody finds it.
    listening.bind(options, options.port, is_shared=False).close()
    with listening.listen_admin(options):
        pass
    metrics = Path(tempfile.mkdtemp(prefix="scalellm-metrics-"))
    reloads, loads = Reloads(load, setup, tenancy, metrics, models), SharedLoads(setup.num_workers)
    try:
        # Holds the port while workers come and go; it never listens, so it is never given a connection.
        with listening.bind(options, options.port, is_shared=True) as holder, _admin_socket(options, None) as admin:
            port = holder.getsockname()[1]

            def work(index: int, ready: Ready) -> None:
                _share_metrics(metrics, index)
                with (
                    listening.bind(options, port, is_shared=True) as listener,
                    _admin_socket(options, admin) as own_admin,
                ):
                    for each in (listener, own_admin):
                        if each is not None:
                            each.listen(listening.BACKLOG)
                    ready()
                    server.serve(models, options, listener, own_admin, context, tenancy, index, reloads, loads)

            def forget(index: int) -> None:
                _forget_gauges(metrics, index)
                tenancy.forget(index)
                loads.forget(index)

            workers = Workers(
                setup.num_workers,
                work,
                stop_timeout_s=options.shutdown_timeout_s,
                on_end=forget,
                on_hangup=lambda: reload_admin.reload(reloads),
            )
            page = listening.page_address(options, admin)
            workers.run(lambda: on_listening(listening.address(options, holder), page))
    finally:
        shutil.rmtree(metrics, ignore_errors=True)


def _admin_socket(options: GatewayOptions, holder: socket | None) -> AbstractContextManager[socket | None]:
    """Return a socket that shares the admin listener's port, the holder's where there is one; or None for none."""
    if not options.has_admin:
        return nullcontext()
    port = listening.admin_port(options) if holder is None else holder.getsockname()[1]
    return listening.bind_admin(options, port, is_shared=True)


def _check_tracing(options: GatewayOptions) -> None:
    if options.otlp_endpoint is None:
        return
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401
    except ModuleNotFoundError as error:
        message = f"tracing.endpoint needs {error.name}, which is not installed"
        raise ToolchainError(message, hint="Install it: pip install 'scalellm-trt[otel]'") from error


def _share_metrics(directory: Path, index: int) -> None:
    """Let this worker's numbers lie in files, from which each worker adds up all.

    prometheus_client names the files by process; by worker they do not grow in number, and one that is started again
    goes on counting where the crashed one stopped.
    """
    from prometheus_client import values

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    make_value_class: Any = values.MultiProcessValue
    values.ValueClass = make_value_class(process_identifier=lambda: index)


def _forget_gauges(directory: Path, index: int) -> None:
    """Remove what a worker said of its present: it has none any more."""
    for file in directory.glob(f"gauge_live*_{index}.db"):
        file.unlink()
