"""A Hugging Face hub on loopback: what `huggingface_hub` needs to look up a model and download its files."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

_INFO = re.compile(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass(kw_only=True)
class HubRepository:
    """One model: its branch `main` points to `commit`."""

    commit: str
    files: dict[str, bytes]
    is_gated: bool = False
    token: str | None = None


@dataclass(frozen=True, kw_only=True)
class SeenRequest:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass(kw_only=True)
class FakeHub:
    """The server; use as a context manager. `cut_after` breaks the first download of a file after that many bytes."""

    repositories: dict[str, HubRepository] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    status: int = 200
    seen: list[SeenRequest] = field(default_factory=list)

    def __enter__(self) -> FakeHub:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def downloads(self, name: str) -> list[SeenRequest]:
        return [request for request in self.seen if request.method == "GET" and request.path.endswith(f"/{name}")]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def _answer(self, *, has_body: bool) -> None:
        hub, path = self.server.hub, unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        hub.seen.append(
            SeenRequest(method=self.command, path=path, range=self.headers.get("Range"), authorization=authorization)
        )
        if hub.status != 200:
            return self._send(hub.status, b"", {}, has_body=has_body)
        match = _INFO.fullmatch(path) or _FILE.fullmatch(path)
        repository = None if match is None else hub.repositories.get(match[1])
        if match is None or repository is None:
            return self._error(404, "RepoNotFound", has_body=has_body)
        if repository.token is not None and authorization != f"Bearer {repository.token}":
            code = "GatedRepo" if repository.is_gated else "RepoNotFound"
            return self._error(403 if repository.is_gated else 401, code, has_body=has_body)
        if match[2] not in ("main", repository.commit):
            return self._error(404, "RevisionNotFound", has_body=has_body)
        if match.re is _INFO:
            return self._info(match[1], repository, has_body=has_body)
        if match[3] not in repository.files:
            return self._error(404, "EntryNotFound", has_body=has_body)
        return self._file(match[3], repository, has_body=has_body)

    def _info(self, name: str, repository: HubRepository, *, has_body: bool) -> None:
        siblings = [{"rfilename": file, "size": len(data)} for file, data in repository.files.items()]
        content = {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, has_body=has_body)

    def _file(self, name: str, repository: HubRepository, *, has_body: bool) -> None:
        data = repository.files[name]
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": repository.commit,
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = self.server.hub.cut_after.pop(name, None) if has_body else None
        self._send(206 if start else 200, data[start:], headers, has_body=has_body, cut=cut)

    def _error(self, status: int, code: str, *, has_body: bool) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"}, has_body=has_body)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, has_body: bool, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            self.send_header(key, value)
        self.end_headers()
        if has_body:
            self.wfile.write(body[:cut])
        self.close_connection = True  # a connection kept alive would outlive the server's shutdown
