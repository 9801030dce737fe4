"""A gateway in a process of its own, and a repository for it with a tokenizer of 263 tokens."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.runtime import signature
from scalellm_trt.runtime.settings import ServiceSettings
from scalellm_trt.triton import repository_manifest
from scalellm_trt.triton.repository_manifest import ModelRecord, RepositoryManifest, ServiceRecord, Version
from tests.fakes import small_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "echo"
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
END_ID = small_tokenizer.byte_level().token_to_id("<|end|>")
VOCAB_SIZE = small_tokenizer.byte_level().get_vocab_size()


def write_repository(root: Path, *, template: str | None = TEMPLATE, **settings: object) -> Path:
    """Write what a gateway reads of a repository with one service."""
    engine = root / MODEL / "1" / "engine"
    small_tokenizer.write(engine)
    if template is not None:
        (engine / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    service = ServiceSettings(
        engine="openvino",
        engine_directory="engine",
        vocab_size=VOCAB_SIZE,
        eos_token_ids=(END_ID,),
        max_batch_size=4,
        max_input_len=1000,
        max_seq_len=1200,
        max_num_tokens=256,
        kv_cache_tokens=1152,
    )
    (root / MODEL / "1" / "service.json").write_text(json.dumps({**service.to_json(), **settings}))
    record = ModelRecord(
        backend="python",
        inputs=tuple(tensor.name for tensor in signature.INPUTS),
        outputs=tuple(tensor.name for tensor in signature.OUTPUTS),
        files={},
    )
    version = Version(
        recipe="echo.yaml",
        owner_digest="0" * 64,
        engine_digest="1" * 64,
        transaction="t",
        created="2026-11-24T00:00:00+00:00",
        models={MODEL: record},
    )
    service_record = ServiceRecord(name=MODEL, current=version, previous=None, previous_id=None)
    manifest = RepositoryManifest(services={MODEL: service_record})
    (root / repository_manifest.MANIFEST_NAME).write_text(repository_manifest.to_text(manifest))
    return root


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """A gateway that listens; `page` is its operator's page, `lines` reads its log."""

    url: str
    page: str | None
    log: Path
    pid: int

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextlib.contextmanager
def running(
    repository: Path, server_url: str | None, log: Path, *options: str, exit_code: int = 0
) -> Iterator[RunningGateway]:
    """Run `scalellm-trt gateway` on a free port until the block ends; it must end with `exit_code`.

    Without a `server_url` the configuration among the options names the servers.
    """
    argv = [sys.executable, "-m", "scalellm_trt", "gateway", "--repository", str(repository)]
    argv += [] if server_url is None else ["--url", server_url]
    with log.open("wb") as errors:
        child = subprocess.Popen([*argv, "--port", "0", *options], stdout=subprocess.PIPE, stderr=errors)
    assert child.stdout is not None
    try:
        # All that it announces comes in one write.
        announced = os.read(child.stdout.fileno(), 65536).decode()
        found, page = re.search(r"https?://[0-9.:]+", announced), re.search(r"  page: (\S+)", announced)
        assert found is not None, announced + log.read_text()
        yield RunningGateway(url=found.group(), page=page and page[1], log=log, pid=child.pid)
    finally:
        child.terminate()
        assert child.wait(timeout=20) == exit_code, log.read_text()
        child.stdout.close()
