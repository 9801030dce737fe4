"""TCP ports on the loopback: which are free, and who has the others. `python -m …ports 8000 8001` prints free ones."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOPBACK = "127.0.0.1"


def is_free(port: int, address: str = LOOPBACK) -> bool:
    """Tell whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As tritonserver does: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def free_ports(num_ports: int) -> list[int]:
    """Return different ports that are free now; another program may take one before it is used."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(num_ports)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def free_or_other(wanted: Sequence[int]) -> list[int]:
    """Return the wanted ports, with a free one in place of each that is taken."""
    spare = iter(free_ports(len(wanted)))
    return [port if is_free(port) else next(spare) for port in wanted]


def owner_of(port: int) -> str | None:
    """Name the process that listens on `port`, as far as this user may see it."""
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return None
    for connection in connections:
        if not connection.laddr or connection.laddr.port != port or connection.pid is None:
            continue
        if connection.status == psutil.CONN_LISTEN:
            try:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}"
            except psutil.Error:
                return f"pid {connection.pid}"
    return None


if __name__ == "__main__":
    print(*free_or_other([int(argument) for argument in sys.argv[1:]]))
