"""A model in Hugging Face layout, as small as files can be."""

from __future__ import annotations

import json
import struct


def safetensors(num_elements: int = 4, name: str = "a") -> bytes:
    """Return a safetensors file that holds one float16 vector."""
    entry = {"dtype": "F16", "shape": [num_elements], "data_offsets": [0, 2 * num_elements]}
    header = json.dumps({name: entry}).encode()
    return struct.pack("<Q", len(header)) + header + b"\1\2" * num_elements


def index(*files: str) -> bytes:
    """Return a safetensors index of one tensor in each file."""
    return json.dumps({"weight_map": {f"tensor{number}": file for number, file in enumerate(files)}}).encode()


def model(**others: bytes) -> dict[str, bytes]:
    """Return name → content of a model with one weight file, and other files."""
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": safetensors()}
    return {**files, **{name.replace("__", "."): content for name, content in others.items()}}
