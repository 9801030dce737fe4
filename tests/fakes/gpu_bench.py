"""A machine with a card and a toolchain, of the programs in tests/fakes/bin: what a GPU build finds on its PATH."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt import facts
from tests.fakes import gpus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest

PROGRAMS = ("nvidia-smi", "trtllm-build", "docker", "podman", "tritonserver", "mpirun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Directories of the machine; `record` gets a line for each call of a container engine."""

    programs: Path
    site_packages: Path
    record: Path

    def commands(self) -> list[list[str]]:
        """Return what the container engine was asked for."""
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []

    def installed(self, **versions: str) -> None:
        """Make distributions look installed."""
        for name, version in versions.items():
            for old in self.site_packages.glob(f"{name}-*.dist-info"):
                (old / "METADATA").unlink()
                old.rmdir()
            folder = self.site_packages / f"{name}-{version}.dist-info"
            folder.mkdir(parents=True)
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def bench(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    toolchain: str,
    hardware: str | None,
    programs: Sequence[str] = ("nvidia-smi", "trtllm-build"),
    images: Sequence[str] = (),
    num_cards: int = 1,
) -> Bench:
    """Make this process, until its test ends, one on a machine with exactly these `programs`.

    Args:
        directory: gets the programs.
        monkeypatch: puts everything back.
        toolchain: the row whose versions are installed, here and in `images`.
        hardware: the card's class; None for a machine without a card.
        programs: of `PROGRAMS`.
        images: what the container engine has; any has the whole toolchain in it.
        num_cards: how many of them.
    """
    here, inside = directory / "bin", directory / "image-bin"
    for folder, names in ((here, programs), (inside, PROGRAMS)):
        folder.mkdir(parents=True)
        for name in names:
            if (gpus.FAKE_PROGRAMS / name).exists():
                (folder / name).symlink_to(gpus.FAKE_PROGRAMS / name)
        (folder / "python3").symlink_to(sys.executable)
    row = facts.toolchains()[toolchain].gpu
    assert row is not None
    made = Bench(programs=here, site_packages=directory / "site", record=directory / "containers.jsonl")
    made.installed(tensorrt_llm=row.tensorrt_llm, tensorrt=row.tensorrt)
    cards = [] if hardware is None else [gpus.card(hardware, index) for index in range(num_cards)]
    values = {
        "PATH": os.pathsep.join((str(here), "/usr/bin", "/bin")),
        "PYTHONPATH": str(made.site_packages),
        "FAKE_NVIDIA_SMI": json.dumps({"cards": cards}),
        "FAKE_IMAGES": json.dumps(list(images)),
        "FAKE_IMAGE_PATH": os.pathsep.join((str(inside), "/usr/bin", "/bin")),
        "FAKE_CONTAINERS": str(made.record),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return made
