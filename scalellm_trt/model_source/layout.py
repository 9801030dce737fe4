"""Which files of a model in Hugging Face layout a build reads, and whether they are all there and whole."""

from __future__ import annotations

import json
import struct
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scalellm_trt.errors import ArtefactError, Problem, RecipeError
from scalellm_trt.model_source.source import SOURCE_KEY

if TYPE_CHECKING:
    from collections.abc import Collection

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
OPTIONAL_FILES = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.model",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_LFS_POINTER = b"version https://git-lfs"
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit


def check_listing(names: Collection[str], where: str) -> None:
    """Refuse a model that lacks what every build needs, going by the names of its files.

    Args:
        names: files at the top of the model.
        where: how the model is called in the message.

    Raises:
        RecipeError: no config.json, tokenizer.json or safetensors; all of them at once.
    """
    problems = []
    if CONFIG_FILE not in names:
        hint = "Name the folder that holds the model's files in Hugging Face layout."
        problems.append(Problem(key=SOURCE_KEY, message=f"{where} has no {CONFIG_FILE}", hint=hint))
    if INDEX_FILE not in names and WEIGHTS_FILE not in names:
        problems.append(_no_weights(names, where))
    if TOKENIZER_FILE not in names:
        hint = (
            "Convert its tokenizer once: transformers' AutoTokenizer.from_pretrained(…).save_pretrained(…) writes it."
        )
        problems.append(Problem(key=SOURCE_KEY, message=f"{where} has no {TOKENIZER_FILE}", hint=hint))
    if problems:
        raise RecipeError(problems)


def described_files(names: Collection[str]) -> list[str]:
    """Return the files to read besides the weights, in a fixed order."""
    return [name for name in (CONFIG_FILE, TOKENIZER_FILE, *OPTIONAL_FILES, INDEX_FILE) if name in names]


def weight_files(index_file: Path | None) -> list[str]:
    """Return the names of the weight files: those that the index lists, or the single one where there is none.

    Raises:
        ArtefactError: the index cannot be read, or names a file outside the model's folder.
    """
    if index_file is None:
        return [WEIGHTS_FILE]
    try:
        weight_map = json.loads(index_file.read_text(encoding="utf-8"))["weight_map"]
        names = sorted({str(name) for name in weight_map.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{index_file}: cannot be read as a safetensors index: {error}"
        raise ArtefactError(message, hint="Download the model again.") from error
    for name in names:
        # A stranger wrote the index: a name with a folder in it could make the build read any file of this machine.
        if PurePosixPath(name).name != name or not name.endswith(".safetensors"):
            message = f"{index_file}: {name!r} is no plain name of a safetensors file"
            raise ArtefactError(message, hint="Download the model again, from a source that you trust.")
    return names


def check_directory(directory: Path, where: str) -> list[str]:
    """Return the names of the files in `directory` that a build reads, after checking that they are whole.

    Links are followed wherever they lead: a hub cache is made of them, and whoever made the folder could as well
    have copied the file.

    Raises:
        RecipeError: it is not a model in Hugging Face layout.
        ArtefactError: a weight file is missing, cut short or not what its name says.
    """
    names = {path.name for path in directory.iterdir() if path.is_file()}
    check_listing(names, where)
    weights = weight_files(directory / INDEX_FILE if INDEX_FILE in names else None)
    missing = [name for name in weights if name not in names]
    if missing:
        message = f"{directory}: {len(missing)} of {len(weights)} weight files are missing: {', '.join(missing[:5])}"
        raise ArtefactError(message, hint=f"{INDEX_FILE} lists them: copy or download the model again.")
    for name in weights:
        _check_safetensors(directory / name)
    return [*described_files(names), *weights]


def _no_weights(names: Collection[str], where: str) -> Problem:
    pickles = sorted(name for name in names if name.endswith(_PICKLES))
    ggufs = sorted(name for name in names if name.endswith(".gguf"))
    message = f"{where} has no safetensors weights ({WEIGHTS_FILE} or {INDEX_FILE})"
    if pickles:
        message += f", only {', '.join(pickles[:3])}"
        hint = "Pickled weights can run any code when they are loaded: look for a safetensors revision or convert them."
    elif ggufs:
        message += f", only {', '.join(ggufs[:3])}"
        hint = "Download the file and write gguf:FILE."
    else:
        hint = "Name a model that has them."
    return Problem(key=SOURCE_KEY, message=message, hint=hint)


def _check_safetensors(path: Path) -> None:
    """Compare the size of a safetensors file with its header: 8 bytes of length, the header, then the tensors."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            message = f"{path}: is a Git LFS pointer, not the file itself"
            raise ArtefactError(message, hint="Run `git lfs pull` in that folder.")
        try:
            (length,) = struct.unpack_from("<Q", start)
            if length > min(size, _MAX_HEADER_BYTES):
                raise ValueError("its header is longer than the file")
            stream.seek(8)
            header = json.loads(stream.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
            message = f"{path}: is no safetensors file: {error}"
            raise ArtefactError(message, hint="Copy or download it again.") from error
    if size != 8 + length + end:
        message = f"{path}: has {size} bytes, its header promises {8 + length + end}"
        raise ArtefactError(message, hint="Copy or download it again.")
