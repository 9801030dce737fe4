"""Text in, token samples out: what a calibrated format looks at to choose its scales, and a digest that pins it."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from scalellm_trt.errors import ArtefactError, Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_KEY: Final = "quantization.calibration.source"
_SUFFIXES: Final = (".txt", ".jsonl")
_FORMS: Final = "Use bundled, file:PATH or dir:PATH; a relative path counts from the recipe's directory."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationSamples:
    """The samples that were really used.

    Attributes:
        source: the recipe's `calibration.source`.
        token_ids: each sample, (1..max_seq_len,) int32.
        max_seq_len: the limit that they were cut to.
        seed: what the order was drawn with.
    """

    source: str
    token_ids: tuple[NDArray[np.int32], ...]
    max_seq_len: int
    seed: int

    @property
    def digest(self) -> str:
        """SHA-256 over the samples in order: per sample its length, then its ids, little-endian int32."""
        digest = hashlib.sha256()
        for ids in self.token_ids:
            digest.update(np.int32(ids.size).astype("<i4").tobytes() + ids.astype("<i4").tobytes())
        return digest.hexdigest()

    def describe(self) -> dict[str, str | int]:
        """Return what a manifest records."""
        return {
            "source": self.source,
            "num_samples": len(self.token_ids),
            "num_tokens": sum(ids.size for ids in self.token_ids),
            "max_seq_len": self.max_seq_len,
            "seed": self.seed,
            "digest": self.digest,
        }


def load_texts(source: str) -> list[str]:
    """Return the documents of `bundled`, `file:PATH` or `dir:PATH`, in a stable order.

    A `.txt` file is one document; each line of a `.jsonl` file is an object whose `text` is one. A directory is
    searched with its subdirectories.

    Raises:
        RecipeError: the source is of no known form, is missing, cannot be read or holds no text.
    """
    if source == "bundled":
        return [bundled_text("calibration.txt")]
    texts = [text for found in text_files(source) for text in _read(found)]
    if not texts:
        message = f"{source} holds no text"
        raise _problem(message, f"Files: {', '.join(_SUFFIXES)}.")
    return texts


def text_files(source: str) -> list[Path]:
    """Return the files of a source, in a stable order; none for `bundled`.

    Raises:
        RecipeError: the source is of no known form, or is not there.
    """
    if source == "bundled":
        return []
    kind, _, location = source.partition(":")
    if kind not in ("file", "dir") or not location:
        message = f"{source!r} is not a source of text"
        raise _problem(message, _FORMS)
    path, wanted = Path(location), "file" if kind == "file" else "directory"
    if not (path.is_file() if kind == "file" else path.is_dir()):
        message = f"{path} is not a {wanted}" if path.exists() else f"there is no {wanted} {path}"
        raise _problem(message, _FORMS)
    if kind == "file":
        return [path]
    return sorted(found for found in path.rglob("*") if found.suffix in _SUFFIXES)


def bundled_text(name: str) -> str:
    """Return `calibration.txt` or `evaluation.txt` of the package: public-domain prose, see data/TEXTS.md."""
    return (importlib.resources.files("scalellm_trt") / "data" / name).read_text(encoding="utf-8")


def _read(path: Path) -> list[str]:
    try:
        return [text for text in _documents(path) if text.strip()]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} cannot be read: {type(error).__name__}: {error}"
        hint = 'Text files are UTF-8; each line of a .jsonl file is an object with a "text".'
        raise _problem(message, hint) from error


def _problem(message: str, hint: str) -> RecipeError:
    """Whoever knows the recipe says in which file and line the source stands."""
    return RecipeError([Problem(key=_KEY, message=message, hint=hint)])


def _documents(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".jsonl":
        yield text
        return
    for line in text.splitlines():
        if line.strip():
            document = json.loads(line)["text"]
            if not isinstance(document, str):
                message = f"text is {document!r}"
                raise TypeError(message)
            yield document


def draw_samples(
    source: str, encode: Callable[[str], list[int]], *, num_samples: int, max_seq_len: int, seed: int
) -> CalibrationSamples:
    """Cut the documents of `source` into windows of `max_seq_len` tokens and draw `num_samples` of them.

    A document's last window may be shorter. Where there are fewer windows than asked for, all are taken: the count that
    was used is in `CalibrationSamples.describe`.

    Args:
        source: `bundled`, `file:PATH` or `dir:PATH`.
        encode: text → token ids, with the special tokens that a prompt begins with.
        num_samples: windows wanted.
        max_seq_len: tokens of a window.
        seed: decides which, and their order.

    Raises:
        RecipeError: see `load_texts`.
    """
    windows = []
    for text in load_texts(source):
        ids = np.asarray(encode(text), dtype=np.int32)
        windows += [ids[start : start + max_seq_len] for start in range(0, ids.size, max_seq_len)]
    random.Random(seed).shuffle(windows)
    return CalibrationSamples(source=source, token_ids=tuple(windows[:num_samples]), max_seq_len=max_seq_len, seed=seed)


def read_tokenizer(directory: Path) -> Callable[[str], list[int]]:
    """Return the encoder of `directory/tokenizer.json`, special tokens included.

    Raises:
        ArtefactError: the file is missing or no tokenizer.
    """
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception for a malformed file
        message = f"{path}: cannot be read as a tokenizer: {error}"
        raise ArtefactError(message, hint="Calibration needs the model's fast tokenizer (tokenizer.json).") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text).ids
        return ids

    return encode
