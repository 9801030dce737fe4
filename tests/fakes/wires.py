"""A wire between a client and a server that can be cut, as when the server is killed, or go dead without a word."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_ABORT = struct.pack("ii", 1, 0)


class Wire:
    """Passes bytes both ways between its own `url` and a server."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._is_cut = self._is_closed = False
        self._flows = threading.Event()
        self._flows.set()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset what stands, and every new connection."""
        with self._lock:
            self._is_cut = True
            ends, self._ends = self._ends, []
        for end in ends:
            _abort(end)
        self._flows.set()

    def hold(self) -> None:
        """Swallow everything from now on, connections stay up."""
        self._flows.clear()

    def mend(self) -> None:
        """Pass on new connections; what was held back comes through, too."""
        self._is_cut = False
        self._flows.set()

    def retarget(self, target: str) -> None:
        """Pass new connections on to another server."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    def close(self) -> None:
        """End it."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            with self._lock:
                if self._is_cut or server is None:
                    for end in (client, server):
                        if end is not None:
                            _abort(end)
                    continue
                self._ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        try:
            return socket.create_connection(self._target)
        except OSError:
            return None

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _abort(end: socket.socket) -> None:
    """Close with a reset, as the kernel does for a process that was killed."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        end.shutdown(socket.SHUT_RD)
    end.close()
