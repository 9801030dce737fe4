#!/usr/bin/env python3
"""Stand for tritonserver: same options, same log lines, and the behaviour that `REPOSITORY/behaviour` names.

ready: answers ready, ends on SIGTERM. crash: ends at once as with a bad model. hang: never ready.
stubborn: ready, ignores SIGTERM. All but crash have a child, as the python backend's stub is one; its pid is
in `REPOSITORY/stub_pid`.
"""

import http.server
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

options = dict(argument.split("=", 1) for argument in sys.argv[1:])
repository = Path(options["--model-repository"])
behaviour = (repository / "behaviour").read_text().strip()

print('I1121 04:02:20.127836 1 model_lifecycle.cc:472] "loading: echo:1"', flush=True)
if behaviour == "crash":
    print("E1121 04:02:22.078211 1 model_lifecycle.cc:642] \"failed to load 'echo' version 1: Internal: no engine\"")
    print("+---+\n| a |\n+---+\nerror: creating server: Internal - failed to load all models", flush=True)
    sys.exit(1)

stub = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(repository / "stub_pid").write_text(str(stub.pid))
if behaviour == "hang":
    time.sleep(60)

signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else lambda *_: os._exit(0))
print("I1121 04:02:20.127836 1 model_lifecycle.cc:839] \"successfully loaded 'echo'\"", flush=True)


class Answers(http.server.BaseHTTPRequestHandler):
    """Ready, with one model."""

    def do_GET(self) -> None:
        """Answer /v2/health/ready."""
        self._send(b"")

    def do_POST(self) -> None:
        """Answer /v2/repository/index."""
        self._send(b'[{"name":"echo","version":"1","state":"READY"},{"name":"broken","state":"UNAVAILABLE"}]')

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.HTTPServer((options["--http-address"], int(options["--http-port"])), Answers).serve_forever()
