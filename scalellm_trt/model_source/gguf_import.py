"""A GGUF file in, a directory in Hugging Face layout out, kept in the cache under the file's digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.artefacts import digest
from scalellm_trt.errors import ArtefactError, ScaleLLMError
from scalellm_trt.model_source import gguf_config, gguf_tokenizer, gguf_weights, layout
from scalellm_trt.model_source.gguf_file import GgufFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalellm_trt.model_source.store import Store

_IMPORTER_FILES = (
    "gguf_config.py",
    "gguf_file.py",
    "gguf_import.py",
    "gguf_tokenizer.py",
    "gguf_weights.py",
    "pretokenizers.py",
    "safetensors_file.py",
)


def importer_version() -> str:
    """Return what names this importer: a digest of its own code, so that nobody has to remember to raise a number."""
    folder = Path(__file__).parent
    return digest.of_sources([folder / name for name in _IMPORTER_FILES], folder)[:12]


def find_or_import(file: Path, sha256: str, store: Store, progress: Callable[[str, float], None]) -> Path:
    """Return the directory that holds the model of `file`, whose SHA-256 is `sha256`; import it where there is none.

    Raises:
        ArtefactError: the file is damaged, or what was imported from it earlier.
        UnsupportedError: it holds a model outside the Llama family, or in a format that cannot be read.
        ToolchainError: the `gguf` package is not installed.
    """

    def make(directory: Path) -> None:
        import_file(file, directory, lambda share: progress(f"importing {file.name}", share))

    directory = store.find_or_make(store.root / "imported" / f"{sha256}-{importer_version()}", make)
    try:
        layout.check_directory(directory, str(directory))
    except ScaleLLMError as error:
        message = f"{directory}: was changed after it was imported: {error.message}"
        raise ArtefactError(message, hint="Remove it, then build again.") from error
    return directory


def import_file(
    path: Path,
    directory: Path,
    progress: Callable[[float], None],
    *,
    chunk_elements: int = gguf_weights.CHUNK_ELEMENTS,
) -> None:
    """Write the model of a GGUF file into an empty directory. Host memory does not grow with the model.

    Args:
        path: the GGUF file.
        directory: gets config.json, the tokenizer's files and the weights.
        progress: gets the share that is done.
        chunk_elements: elements that are dequantized at a time.

    Raises:
        ArtefactError, UnsupportedError, ToolchainError: as `find_or_import`.
    """
    file = GgufFile(path)
    model = gguf_config.read(file)
    vocabulary = gguf_tokenizer.read(file)
    if len(vocabulary.tokens) > model.vocab_size:
        file.fail(f"it has {len(vocabulary.tokens)} tokens for {model.vocab_size} rows of the embedding")
    tokenizer = gguf_tokenizer.build(file, vocabulary)
    _write_json(directory / layout.CONFIG_FILE, gguf_config.config(file, model))
    _write_json(directory / "generation_config.json", gguf_config.generation_config(file))
    _write_json(directory / "tokenizer_config.json", gguf_tokenizer.config(file, vocabulary))
    (directory / layout.TOKENIZER_FILE).write_text(tokenizer.to_str(), encoding="utf-8")
    gguf_weights.write(file, model, directory, progress, chunk_elements=chunk_elements)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
