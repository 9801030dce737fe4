"""A TensorRT-LLM checkpoint directory in, a directory that the OpenVINO engine serves out; no torch in the process."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Final, cast

from scalellm_trt.backends.openvino_graph import build_model
from scalellm_trt.backends.openvino_weights import CheckpointWeights
from scalellm_trt.checkpoint.layout import quantized_linears
from scalellm_trt.checkpoint.reader import CheckpointReader
from scalellm_trt.checkpoint.tokenizer_files import copy_tokenizer_files
from scalellm_trt.errors import StageError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    from scalellm_trt.backends.base import Progress

MODEL_FILE: Final = "openvino_model.xml"
WEIGHTS_FILE: Final = "openvino_model.bin"


def compile_checkpoint(checkpoint_dir: Path, out_dir: Path, progress: Progress) -> None:
    """Write `openvino_model.xml`, `openvino_model.bin` and the tokenizer's files into `out_dir`.

    Raises:
        ArtefactError: the checkpoint is missing or damaged.
        UnsupportedError: a format, model or number of ranks that we do not have.
        ToolchainError: openvino is not installed.
        StageError: the files cannot be written.
    """
    # `import openvino` would report to a web service and leave a folder in HOME; without this package it does neither.
    sys.modules.setdefault("openvino_telemetry", cast("ModuleType", None))
    try:
        import openvino as ov
    except ImportError as error:
        message = f"openvino cannot be imported: {error}"
        raise ToolchainError(
            message, hint="Install the embedded CPU stack: pip install 'scalellm-trt[cpu]'."
        ) from error
    reader = CheckpointReader(checkpoint_dir)
    try:
        with CheckpointWeights(reader, out_dir, _matrix_counter(reader, progress)) as weights:
            model = build_model(reader.config.spec, weights)
            progress("write the model", 0.7)
            ov.serialize(model, str(out_dir / MODEL_FILE), str(out_dir / WEIGHTS_FILE))
            del model  # its constants point into the weights
        finish_model_file(out_dir / MODEL_FILE)
        copy_tokenizer_files(checkpoint_dir, out_dir)
    except (OSError, RuntimeError) as error:
        message = f"{out_dir}: the model cannot be made: {error}"
        raise StageError(message, hint="Check the free space and permissions of this directory.") from error
    progress("write the model", 1.0)


def _matrix_counter(reader: CheckpointReader, progress: Progress) -> Callable[[str], None]:
    """Return what reports each matrix; all of them are 0.7 of the work, writing the files is the rest."""
    total = len(quantized_linears(reader.config.spec)) + 2
    activity = "quantize weights" if reader.config.quant_algo in ("W8A16", "W4A16") else "read weights"
    num_seen = 0

    def on_matrix(prefix: str) -> None:
        nonlocal num_seen
        progress(activity, 0.7 * num_seen / total)
        num_seen += 1

    return on_matrix


def finish_model_file(model_file: Path) -> None:
    """Mark decompression and make names reproducible in a saved model; its Python API can do neither.

    Only where the `Convert` of a 16-bit constant is marked as decompression does the CPU plugin keep the matrix as it
    is, which halves memory and the bytes read per token; without the mark it is widened to float32 when the model is
    compiled. OpenVINO's own compression to float16 sets the mark, but starts from float32 constants.

    Automatic names count the nodes of the process: with the layer's number instead, the same checkpoint gives the same
    bytes.
    """
    tree = ElementTree.parse(model_file)
    by_id = {layer.get("id"): layer for layer in tree.iterfind("layers/layer")}
    for layer_id, layer in by_id.items():
        if layer.get("type") not in ("Parameter", "Result"):
            layer.set("name", f"{layer.get('type')}_{layer_id}")
    for edge in tree.iterfind("edges/edge"):
        source, target = by_id[edge.get("from-layer")], by_id[edge.get("to-layer")]
        if target.get("type") == "Convert" and _is_16_bit_constant(source):
            mark = ElementTree.Element("rt_info")
            ElementTree.SubElement(mark, "attribute", name="decompression", version="0")
            target.insert(1, mark)  # between `data` and the ports
    tree.write(model_file, encoding="utf-8", xml_declaration=True)


def _is_16_bit_constant(layer: ElementTree.Element) -> bool:
    data = layer.find("data")
    return layer.get("type") == "Const" and data is not None and data.get("element_type") in ("f16", "bf16")
