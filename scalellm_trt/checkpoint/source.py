"""A Hugging Face model directory in, its weights out by name: which shard holds what, and every complaint about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from scalellm_trt.checkpoint.dtypes import FLOAT_DTYPES
from scalellm_trt.checkpoint.layout import source_tensors
from scalellm_trt.checkpoint.tensor_file import TensorFile
from scalellm_trt.errors import ArtefactError, Problem, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from scalellm_trt.checkpoint.tensor_file import TensorEntry
    from scalellm_trt.model_spec import ModelSpec

_INDEX: Final = "model.safetensors.index.json"
# Old exports carry this buffer; it follows from rope_theta.
_DERIVED_SUFFIX: Final = ".rotary_emb.inv_freq"
_REFETCH: Final = "Fetch the model again."


class SourceWeights:
    """The weights of a model directory. Opening it reads headers only."""

    def __init__(self, directory: Path) -> None:
        """Find the shards and read their headers.

        Raises:
            ArtefactError: there are no safetensors files, one is missing or damaged, or two hold the same tensor.
        """
        self.directory = directory
        self.files: dict[str, TensorFile] = {}
        for path in _shards(directory):
            file = TensorFile(path)
            for name in file.entries:
                if name in self.files:
                    message = f"{path}: tensor {name} is in {self.files[name].path.name} too"
                    raise ArtefactError(message, hint="Keep one set of weights in the directory.")
                self.files[name] = file

    def entry(self, name: str) -> TensorEntry:
        """Return where and what the tensor `name` is."""
        return self.files[name].entries[name]

    def check(self, spec: ModelSpec) -> None:
        """Compare names, shapes and element types with what `spec` needs.

        Raises:
            ArtefactError: tensors are missing or have another shape than the config says.
            UnsupportedError: an element type cannot be converted, or there are tensors that we would have to drop.
        """
        wanted = {
            part: (rows,) if len(source.shape) == 1 else (rows, source.shape[-1])
            for source in source_tensors(spec).values()
            for part, rows in source.parts
        }
        if missing := [name for name in wanted if name not in self.files]:
            message = f"{self.directory}: {len(missing)} tensors are missing: {_some(missing)}"
            raise ArtefactError(message, hint=_REFETCH)
        if wrong := [name for name, shape in wanted.items() if self.entry(name).shape != shape]:
            first = f"{wrong[0]} is {list(self.entry(wrong[0]).shape)}, config.json asks for {list(wanted[wrong[0]])}"
            message = f"{self.directory}: {len(wrong)} tensors have another shape: {first}"
            raise ArtefactError(message, hint=_REFETCH)
        self._check_supported(wanted, "lm_head.weight" if spec.tie_word_embeddings else None)

    def _check_supported(self, wanted: Iterable[str], redundant: str | None) -> None:
        wanted = set(wanted)
        problems = [
            Problem(
                file=self.files[name].path,
                message=f"tensor {name} has element type {self.entry(name).dtype}",
                hint=f"Supported: {', '.join(sorted(FLOAT_DTYPES))}. Take the original 16-bit model.",
            )
            for name in sorted(wanted)
            if self.entry(name).dtype not in FLOAT_DTYPES
        ]
        unknown = [
            name for name in self.files if name not in wanted | {redundant} and not name.endswith(_DERIVED_SUFFIX)
        ]
        if unknown:
            hint = "The model has parts that its config.json does not say, such as biases or adapters."
            message = f"{len(unknown)} tensors are unknown: {_some(unknown)}"
            problems.append(Problem(file=self.directory, message=message, hint=hint))
        if problems:
            raise UnsupportedError(problems)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _shards(directory: Path) -> list[Path]:
    """Return the files that the index lists, or without an index every safetensors file."""
    index = directory / _INDEX
    if not index.exists():
        paths = sorted(directory.glob("*.safetensors"))
        if not paths:
            message = f"{directory}: holds no .safetensors file"
            raise ArtefactError(message, hint=_REFETCH)
        return paths
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{index}: is not an index of shards: {error}"
        raise ArtefactError(message, hint=_REFETCH) from error
    if missing := [name for name in names if not (directory / name).is_file()]:
        message = f"{index}: lists files that are not there: {_some(missing)}"
        raise ArtefactError(message, hint=_REFETCH)
    return [directory / name for name in names]
