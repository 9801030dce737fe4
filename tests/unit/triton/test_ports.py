from __future__ import annotations

import os
import socket
import subprocess
import sys

from scalellm_trt.triton import ports


def test_a_port_that_somebody_listens_on_is_not_free_and_its_owner_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not ports.is_free(port)
        owner = ports.owner_of(port)
        assert owner is not None
        assert f"pid {os.getpid()}" in owner
        (other,) = ports.free_or_other([port])
        assert other != port
    assert ports.is_free(port)
    assert ports.owner_of(port) is None
    assert ports.free_or_other([port]) == [port]


def test_free_ports_are_different() -> None:
    assert len(set(ports.free_ports(10))) == 10


def test_run_as_a_program_it_prints_the_ports() -> None:
    wanted = [str(port) for port in ports.free_ports(2)]
    printed = subprocess.run(
        [sys.executable, "-m", "scalellm_trt.triton.ports", *wanted], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == wanted
