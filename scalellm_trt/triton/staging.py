"""Typed models in, their directories on disk out: complete, pushed to the disk, not yet where tritonserver looks."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import manifest, publish
from scalellm_trt.errors import ArtefactError
from scalellm_trt.triton import model_config
from scalellm_trt.triton.repository_manifest import FileState, ModelRecord

if TYPE_CHECKING:
    from scalellm_trt.artefacts.publish import Trace
    from scalellm_trt.artefacts.types import TritonModel

CONFIG_NAME = "config.pbtxt"
VERSION_NAME = "1"
SETTINGS_NAME = "service.json"

# Another file system, a file of another user (fs.protected_hardlinks), too many links, or no links at all.
_CANNOT_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


def write_model(model: TritonModel, directory: Path, *, root: Path, transaction: str, trace: Trace) -> ModelRecord:
    """Write `model`'s directory: config.pbtxt, its mark, and `1/` with sources, service.json and engine.

    Sources are copied: an installed package may be edited in place. Directories are linked file by file, so
    that an engine is on the disk once; a build replaces its files and never writes into them.

    Args:
        model: what to write.
        directory: where to; nothing is there yet.
        root: the repository as the server will see it.
        transaction: the switch that this belongs to.
        trace: called before each step that changes the disk.

    Raises:
        ArtefactError: a source is missing, or a name leads out of the directory.
        OSError: the disk refused.
    """
    text = model_config.render(model, root)
    version_dir = directory / VERSION_NAME
    trace(f"stage {model.name}")
    version_dir.mkdir(parents=True)
    (directory / CONFIG_NAME).write_text(text, encoding="utf-8")
    publish.write_mark(directory, transaction, model=model.name)
    (version_dir / SETTINGS_NAME).write_text(settings_text(model), encoding="utf-8")
    for name, source in model.source_files.items():
        target = _inside(version_dir, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_existing(source), target)
    for name, source in model.directories.items():
        trace(f"link {model.name}/{name}")
        link_tree(_existing(source), _inside(version_dir, name))
    trace(f"sync {model.name}")
    manifest.sync_tree(directory)
    return describe(model, directory)


def settings_text(model: TritonModel) -> str:
    """Return the text of a model's service.json."""
    return json.dumps(dict(model.settings), indent=1, sort_keys=True) + "\n"


def describe(model: TritonModel, directory: Path) -> ModelRecord:
    """Record what the manifest says of a model's directory."""
    files = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        state = path.stat()
        files[path.relative_to(directory).as_posix()] = FileState(size=state.st_size, mtime_ns=state.st_mtime_ns)
    return ModelRecord(
        backend=model.backend,
        inputs=tuple(tensor.name for tensor in model.inputs),
        outputs=tuple(tensor.name for tensor in model.outputs),
        files=files,
    )


def link_tree(source: Path, target: Path) -> None:
    """Give every file below `source` a second name below `target`; copy where no link can be made.

    Symbolic links are followed, so that the result stands without what is around `source`.
    """
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            link_tree(path, target / path.name)
        else:
            _link(path.resolve(), target / path.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        shutil.copy2(source, target)


def _inside(directory: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts:
        message = f"{name!r} leads out of the model's directory"
        raise ArtefactError(message)
    return directory / path


def _existing(source: Path) -> Path:
    if not source.exists():
        message = f"{source}: is missing, the model cannot be assembled without it"
        raise ArtefactError(message, hint="Run `scalellm-trt build` again.")
    return source
