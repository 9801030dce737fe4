"""An OpenVINO model with a paged KV cache: the tokens of many sequences in, the logits of those asked for out.

The engine's graph is stateful, one cache for each row. OpenVINO's own transformation turns it into one whose attention
reads and writes pages that are named with each call. While a call is computed, the interpreter's lock is free.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    import types
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

MODEL_FILE = "openvino_model.xml"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """What one call is given; names are those of the paged graph.

    Attributes:
        input_ids: (num_tokens,) int64, sequence after sequence.
        position_ids: (num_tokens,) int64, each token's place in its sequence.
        past_lens: (num_sequences,) int32, tokens of each that are in the cache.
        subsequence_begins: (num_sequences + 1,) int32, where each begins in `input_ids`, and the end.
        block_indices: (num_blocks,) int32, the pages of all sequences.
        block_indices_begins: (num_sequences + 1,) int32, where each begins in `block_indices`, and the end.
        max_context_len: () int32, tokens of the longest sequence, those of this call included.
        logits_indices: (num_rows,) int64, places in `input_ids` whose logits are wanted; at least one.
    """

    input_ids: NDArray[np.int64]
    position_ids: NDArray[np.int64]
    past_lens: NDArray[np.int32]
    subsequence_begins: NDArray[np.int32]
    block_indices: NDArray[np.int32]
    block_indices_begins: NDArray[np.int32]
    max_context_len: NDArray[np.int32]
    logits_indices: NDArray[np.int64]


class PagedModel:
    """The compiled model and its pages."""

    def __init__(self, directory: Path, num_blocks: int, properties: Mapping[str, object]) -> None:
        """Compile the model in `directory` for this CPU with `properties`, and reserve `num_blocks` pages."""
        # `import openvino` would report to a web service from a thread of its own; without this package it does not.
        sys.modules.setdefault("openvino_telemetry", cast("types.ModuleType", None))
        import openvino
        from openvino._offline_transformations import paged_attention_transformation

        self._tensor = openvino.Tensor
        core = openvino.Core()
        model = core.read_model(directory / MODEL_FILE)
        paged_attention_transformation(model)
        _compute_wanted_logits_only(model)
        compiled = core.compile_model(model, "CPU", dict(properties))
        self._request = compiled.create_infer_request()
        for port in compiled.inputs:
            name = port.get_any_name()
            if name.startswith(("key_cache.", "value_cache.")):
                # The system gives memory when it is touched: a page costs none until it is used.
                shape = openvino.Shape([num_blocks, *(port.partial_shape[axis].get_length() for axis in (1, 2, 3))])
                self._request.set_tensor(name, openvino.Tensor(port.element_type, shape))
        self._inputs: StepInputs | None = None

    def start(self, inputs: StepInputs) -> None:
        """Begin to compute a call; `wait` ends it."""
        self._inputs = inputs  # the tensors are views of its arrays
        for name in StepInputs.__slots__:
            self._request.set_tensor(name, self._tensor(getattr(inputs, name), shared_memory=True))
        self._request.start_async()

    def wait(self) -> NDArray[np.float32]:
        """Return the logits: (num_rows, vocab_size), valid until the next `start`."""
        self._request.wait()
        logits: NDArray[np.float32] = self._request.get_tensor("logits").data
        return logits[:, 0, :]


def _compute_wanted_logits_only(model: Any) -> None:  # noqa: ANN401  openvino has no types
    """Give `model` the input `logits_indices`: the rows for which the output layer is computed."""
    import openvino
    from openvino import opset13 as ops

    indices = ops.parameter(openvino.PartialShape([-1]), openvino.Type.i64, name="logits_indices")
    indices.output(0).set_names({"logits_indices"})
    product = model.get_results()[0].input(0).get_source_output().get_node()
    while product.get_type_name() != "MatMul":  # a bias is added to it
        product = product.input(0).get_source_output().get_node()
    hidden = product.input(0)
    hidden.replace_source_output(ops.gather(hidden.get_source_output(), indices, np.int64(0)).output(0))
    model.add_parameters([indices])
    model.validate_nodes_and_infer_types()
