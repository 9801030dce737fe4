from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.cli.command_line import run
from scalellm_trt.errors import ArtefactError
from scalellm_trt.gateway import served
from tests.fakes.gateways import MODEL, write_repository

if TYPE_CHECKING:
    from pathlib import Path


def test_a_repository_tells_what_its_models_take(tmp_path: Path) -> None:
    models = served.load(write_repository(tmp_path))
    assert list(models) == [MODEL]
    assert models[MODEL].max_new_tokens(100) == 1053
    assert models[MODEL].template is not None


def test_the_length_limits_where_the_cache_does_not(tmp_path: Path) -> None:
    models = served.load(write_repository(tmp_path, kv_cache_tokens=3200))
    assert models[MODEL].max_new_tokens(100) == 1100


def test_an_empty_or_damaged_repository_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no model that takes tokens"):
        served.load(tmp_path)
    write_repository(tmp_path)
    (tmp_path / MODEL / "1" / "engine" / "tokenizer.json").write_text("{")
    with pytest.raises(ArtefactError, match=r"tokenizer\.json: cannot be read"):
        served.load(tmp_path)
    (tmp_path / MODEL / "1" / "service.json").write_text("{}")
    with pytest.raises(ArtefactError, match="engine: is missing"):
        served.load(tmp_path)


def test_a_port_in_use_and_a_missing_repository_have_their_exit_codes(tmp_path: Path) -> None:
    import socket

    write_repository(tmp_path / "repository")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run(["gateway", "--repository", str(tmp_path / "repository"), "--port", port]) == 2
    assert run(["gateway", "--repository", str(tmp_path / "nothing"), "--port", "0"]) == 6


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys, scalellm_trt.gateway.server, scalellm_trt.gateway.served, tritonclient.grpc, grpc.aio; "
        "print({'torch', 'transformers', 'openvino'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
