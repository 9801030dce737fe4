"""Publish tiny services of a project, and look at what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.artefacts.publish import untraced
from scalellm_trt.triton import repository
from tests.fakes.triton_models import make_engine, make_model

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.artefacts.publish import Trace
    from scalellm_trt.artefacts.types import Stamp


@dataclass
class Desk:
    """A project's directories, and short calls on its repository."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "triton_repo"

    @property
    def state_dir(self) -> Path:
        return self.directory / "builds" / ".cache" / "repository"

    def publish(
        self,
        version: str,
        *,
        service: str = "chat",
        models: tuple[str, ...] = ("chat",),
        stamp: Stamp | None = None,
        trace: Trace = untraced,
    ) -> None:
        engine = self.directory / "engines" / version
        if not engine.exists():
            make_engine(engine, version)
        repository.publish(
            [make_model(name, engine=engine, version=version) for name in models],
            service=service,
            recipe=f"recipes/{service}.yaml",
            owner_digest=f"digest of {version}",
            engine_digest=f"engine {version}",
            root=self.root,
            state_dir=self.state_dir,
            stamp=stamp,
            trace=trace,
        )

    def version_of(self, model: str) -> str:
        """Return the version in which all files of a model's directory agree."""
        directory = self.root / model
        found = {
            (directory / "1" / "engine" / "config.json").read_text(),
            (directory / "1" / "engine" / "weights" / "rank0.bin").read_text()[:1],
            (directory / "1" / "service.json").read_text().split('"version": "')[1][0],
            (directory / "config.pbtxt").read_text().split('"version" value { string_value: "')[1][0],
        }
        assert len(found) == 1, f"{directory} is a mixture: {found}"
        return found.pop()

    def leftovers(self) -> list[str]:
        """Name what commands left behind in the state directory besides the lock and previous versions."""
        return sorted({entry.name for entry in self.state_dir.iterdir()} - {"lock", "previous"})
