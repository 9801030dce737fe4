"""A typed model in, the text of its config.pbtxt out, proved by reading it back through Triton's own schema."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scalellm_trt.errors import ArtefactError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalellm_trt.artefacts.types import TritonModel, TritonTensor

HEADER = "# Written by scalellm-trt from a recipe: change the recipe and build again.\n"
PLACEHOLDER = "${"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
MAX_NAME_LENGTH = 128

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def render(model: TritonModel, root: Path) -> str:
    """Return the text of `model`'s config.pbtxt: the same text for the same model and root, whatever the machine.

    The model is decoupled (a request gets as many responses as the engine has chunks) and has one instance on the
    CPU side (the engine owns the device and batches in flight). Triton's own queue is there only where its limit
    is wanted, and never waits for a batch to fill.

    Args:
        model: what to describe.
        root: the repository as the server will see it; engines are named by absolute paths below it.

    Raises:
        ArtefactError: a name cannot be a Triton model, a value still holds a `${placeholder}`, or the text read
            back through Triton's schema is not the model; the message names the field.
    """
    _check_names(model)
    parameters = {**model.parameters, **{key: str(root / path) for key, path in model.repository_paths.items()}}
    text = _text(model, parameters)
    if PLACEHOLDER in text:
        line = next(line for line in text.splitlines() if PLACEHOLDER in line)
        message = f"{model.name}: config.pbtxt still holds a placeholder: {line.strip()}"
        raise ArtefactError(message, hint="Every value must be filled in before the repository is assembled.")
    _check_reads_back(text, model, parameters)
    return text


def _check_names(model: TritonModel) -> None:
    if not NAME_PATTERN.fullmatch(model.name) or len(model.name) > MAX_NAME_LENGTH:
        message = f"{model.name!r} cannot be the name of a Triton model"
        hint = f"Allowed: letters, digits, '_', '.', '-', not first '.' or '-', at most {MAX_NAME_LENGTH} characters."
        raise ArtefactError(message, hint=hint)
    for tensors in (model.inputs, model.outputs):
        names = [tensor.name for tensor in tensors]
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            message = f"{model.name}: tensors are listed twice: {', '.join(doubles)}"
            raise ArtefactError(message)


def _text(model: TritonModel, parameters: Mapping[str, str]) -> str:
    lines = [
        f"name: {_quote(model.name)}",
        f"backend: {_quote(model.backend)}",
        f"max_batch_size: {model.max_batch_size}",
    ]
    if model.default_model_filename is not None:
        lines.append(f"default_model_filename: {_quote(model.default_model_filename)}")
    lines.append("model_transaction_policy { decoupled: true }")
    if model.max_queue_size is not None:
        lines += [
            "dynamic_batching {",
            f"  preferred_batch_size: [ {model.max_batch_size} ]",
            "  max_queue_delay_microseconds: 0",
            f"  default_queue_policy {{ max_queue_size: {model.max_queue_size} }}",
            "}",
        ]
    lines += [
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        *_tensors("input", model.inputs),
        *_tensors("output", model.outputs),
        *(parameter_line(key, value) for key, value in sorted(parameters.items())),
    ]
    return HEADER + "\n".join(lines) + "\n"


def parameter_line(key: str, value: str) -> str:
    """Return the line of config.pbtxt that gives the model a parameter."""
    return f"parameters {{ key: {_quote(key)} value {{ string_value: {_quote(value)} }} }}"


def _tensors(field: str, tensors: tuple[TritonTensor, ...]) -> list[str]:
    if not tensors:
        return []
    rows = [f"  {{ {_tensor(tensor)} }}" for tensor in tensors]
    return [f"{field} [", *(f"{row}," for row in rows[:-1]), rows[-1], "]"]


def _tensor(tensor: TritonTensor) -> str:
    dims = ", ".join(str(size) for size in tensor.dims)
    flags = [
        *(["reshape: { shape: [ ] }"] if tensor.is_scalar else []),
        *(["optional: true"] if tensor.optional else []),
        *(["allow_ragged_batch: true"] if tensor.is_ragged else []),
    ]
    return " ".join([f"name: {_quote(tensor.name)} data_type: {tensor.data_type} dims: [ {dims} ]", *flags])


def _quote(value: str) -> str:
    """Quote as protobuf's text format does; everything outside printable ASCII as octal bytes of its UTF-8."""
    quoted = []
    for character in value:
        if character in _ESCAPES:
            quoted.append(_ESCAPES[character])
        elif " " <= character <= "~":
            quoted.append(character)
        else:
            quoted.extend(f"\\{byte:03o}" for byte in character.encode())
    return f'"{"".join(quoted)}"'


def _check_reads_back(text: str, model: TritonModel, parameters: Mapping[str, str]) -> None:
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    parsed = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(text, parsed)
    except text_format.ParseError as error:
        message = f"{model.name}: Triton's schema refuses the config.pbtxt: {error}"
        raise ArtefactError(message, hint="This is a mistake in the model's description; please report it.") from error
    found = json_format.MessageToDict(parsed, preserving_proto_field_name=True)
    for field, wanted in _expected(model, parameters).items():
        if found.pop(field, None) != wanted:
            message = f"{model.name}: config.pbtxt: {field} does not read back as it was meant"
            raise ArtefactError(message, hint="This is a mistake in the model's description; please report it.")
    if found:
        message = f"{model.name}: config.pbtxt holds fields that nobody asked for: {', '.join(sorted(found))}"
        raise ArtefactError(message)


def _expected(model: TritonModel, parameters: Mapping[str, str]) -> dict[str, object]:
    """Return the model in proto3's JSON form: zero values absent, int64 as text."""
    expected: dict[str, object] = {
        "name": model.name,
        "backend": model.backend,
        "max_batch_size": model.max_batch_size,
        "default_model_filename": model.default_model_filename,
        "model_transaction_policy": {"decoupled": True},
        "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        "input": [_expected_tensor(tensor) for tensor in model.inputs],
        "output": [_expected_tensor(tensor) for tensor in model.outputs],
        "parameters": {key: {"string_value": value} if value else {} for key, value in parameters.items()},
    }
    if model.max_queue_size is not None:
        policy = {"max_queue_size": model.max_queue_size} if model.max_queue_size else {}
        expected["dynamic_batching"] = {
            "preferred_batch_size": [model.max_batch_size],
            "default_queue_policy": policy,
        }
    return {field: value for field, value in expected.items() if value}


def _expected_tensor(tensor: TritonTensor) -> dict[str, object]:
    expected: dict[str, object] = {
        "name": tensor.name,
        "data_type": tensor.data_type,
        "dims": [str(size) for size in tensor.dims],
    }
    flags = {"optional": tensor.optional, "allow_ragged_batch": tensor.is_ragged}
    # The presence of the empty shape is what counts: without it Triton hands the tensor on with one dimension more.
    return (
        expected
        | ({"reshape": {}} if tensor.is_scalar else {})
        | {name: True for name, is_set in flags.items() if is_set}
    )
