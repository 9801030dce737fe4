"""A model and token samples in; each decoder layer, quantized by NVIDIA ModelOpt, out, one after the other.

A layer's scales depend on its own weights and on what flows into it, and while ModelOpt collects statistics nothing is
quantized yet. So the model is never loaded: layer after layer is put into a model of one layer, ModelOpt quantizes that
one, and what its samples' hidden states became is kept on disk for the next. The tensors are those of quantizing the
whole model, bit for bit. The device holds one layer and the activations of one batch.
"""

from __future__ import annotations

import copy
import math
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scalellm_trt.checkpoint.dtypes import to_float32
from scalellm_trt.memory.calibration import BATCH_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from scalellm_trt.checkpoint.calibration import CalibrationSamples
    from scalellm_trt.checkpoint.dtypes import CheckpointDtype
    from scalellm_trt.checkpoint.source import SourceWeights
    from scalellm_trt.model_spec import ModelSpec

    Progress = Callable[[str, float], None]

# The one layer's model needs some vocabulary, and ModelOpt pads to a multiple of this.
_STUB_VOCAB_SIZE: Final = 64
# A linear runs once per batch while statistics are collected; AWQ's search runs it once more and with 11 scalings.
_STATISTICS_COST: Final = 1
_SEARCH_COST: Final = 12


def best_device() -> str:
    """Return `cuda` where torch sees a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def quantized_layers(
    weights: SourceWeights,
    spec: ModelSpec,
    rules: dict[str, Any],
    samples: CalibrationSamples,
    scratch: Path,
    progress: Progress,
    *,
    dtype: CheckpointDtype,
    device: str,
) -> Iterator[tuple[int, Any]]:
    """Yield each layer's number and a transformers model of that one layer, quantized; it is valid until the next.

    Args:
        weights: of the model.
        spec: of the model.
        rules: ModelOpt's quantization config.
        samples: the text that statistics are collected over.
        scratch: a directory for hidden states: `hidden_size` elements per token and pass.
        progress: called before every batch.
        dtype: element type of the computation on a GPU; a CPU computes in float32.
        device: where to compute, `cuda` or `cpu`.
    """
    import modelopt.torch.quantization as mtq
    import torch

    torch_dtype = torch.float32 if device == "cpu" else getattr(torch, dtype)
    states = _HiddenStates(weights, spec, calibration_batches(samples), scratch, torch_dtype)
    is_awq = str(rules["algorithm"]).find("awq") >= 0
    for layer in range(spec.num_layers):
        model = _one_layer_model(weights, spec, layer, torch_dtype).to(device)
        calls = _Calls(states, layer, spec.num_layers, progress, num_calls=2 if is_awq else 1)
        with torch.no_grad():
            mtq.quantize(model, copy.deepcopy(rules), calls.forward_loop)
        states.finish_layer()
        yield layer, model
        del model


class _Calls:
    """The `forward_loop` of one layer, which ModelOpt calls once for each of its passes."""

    def __init__(
        self, states: _HiddenStates, layer: int, num_layers: int, progress: Progress, *, num_calls: int
    ) -> None:
        self._states = states
        self._layer, self._num_layers = layer, num_layers
        self._progress = progress
        costs = (_STATISTICS_COST, _SEARCH_COST)[:num_calls]
        self._costs = [cost / sum(costs) for cost in costs]
        self._call = 0

    def forward_loop(self, model: Any) -> None:  # noqa: ANN401  torch is not typed here
        call, self._call = self._call, self._call + 1
        num_batches = self._states.num_batches
        for batch in range(num_batches):
            within = sum(self._costs[:call]) + self._costs[min(call, len(self._costs) - 1)] * batch / num_batches
            what = "searching scales" if call else "collecting statistics"
            activity = f"layer {self._layer + 1} of {self._num_layers}: {what}, batch {batch + 1} of {num_batches}"
            self._progress(activity, (self._layer + min(1.0, within)) / self._num_layers)
            self._states.advance(model, call, batch)


class _HiddenStates:
    """What flows between layers, for each pass and batch; files, of which the system keeps in memory what it can.

    Each pass has its own: in AWQ's second one an 8-bit KV cache is already in effect.
    """

    def __init__(
        self,
        weights: SourceWeights,
        spec: ModelSpec,
        batches: Sequence[NDArray[np.int64]],
        scratch: Path,
        dtype: Any,  # noqa: ANN401  torch.dtype
    ) -> None:
        self._embedding = "model.embed_tokens.weight"
        self._weights, self._spec, self._batches = weights, spec, batches
        self._scratch, self._dtype = scratch, dtype
        self._stored: dict[tuple[int, int], Any] = {}
        self._is_first_layer = True

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    def advance(self, model: Any, call: int, batch: int) -> None:  # noqa: ANN401
        """Run the model's layer over a batch, and keep what came out in place of what went in."""
        hidden = self._embedded(batch) if self._is_first_layer else self._stored[call, batch]
        outputs: list[Any] = []

        def keep(_module: object, _inputs: object, output: Any) -> None:  # noqa: ANN401
            outputs.append(output[0] if isinstance(output, tuple) else output)

        handle = model.model.layers[0].register_forward_hook(keep)
        try:
            model.model(inputs_embeds=hidden.to(model.device), use_cache=False)
        finally:
            handle.remove()
        self._slot(call, batch).copy_(outputs[-1])

    def finish_layer(self) -> None:
        """Let the next layer read what this one wrote."""
        self._is_first_layer = False

    def _embedded(self, batch: int) -> Any:  # noqa: ANN401
        import torch

        file = self._weights.files[self._embedding]
        rows = file.raw(self._embedding)[self._batches[batch]]
        return torch.from_numpy(to_float32(rows, file.dtype(self._embedding))).to(self._dtype)

    def _slot(self, call: int, batch: int) -> Any:  # noqa: ANN401
        import torch

        if (call, batch) not in self._stored:
            shape = (*self._batches[batch].shape, self._spec.hidden_size)
            path, size = self._scratch / f"hidden-{call}-{batch}", math.prod(shape)
            with path.open("wb") as file:  # a disk that fills up under a mapped file kills the process
                os.posix_fallocate(file.fileno(), 0, size * self._dtype.itemsize)
            mapped = torch.from_file(str(path), shared=True, size=size, dtype=self._dtype)
            self._stored[call, batch] = mapped.view(shape)
        return self._stored[call, batch]


def calibration_batches(samples: CalibrationSamples) -> list[NDArray[np.int64]]:
    """Stack samples of equal length to batches of about `BATCH_TOKENS` tokens, each (samples, length) int64.

    The search quantizes every weight 11 times for each batch, however small: one sample at a time is several times as
    slow. A mean over a batch of equal lengths is the mean of the means, so that scales stay the same.
    """
    by_length: dict[int, list[NDArray[np.int32]]] = {}
    for ids in samples.token_ids:
        by_length.setdefault(ids.size, []).append(ids)
    batches = []
    for length, group in by_length.items():
        step = max(1, BATCH_TOKENS // length)
        batches += [np.stack(group[start : start + step]).astype(np.int64) for start in range(0, len(group), step)]
    return batches


def _one_layer_model(weights: SourceWeights, spec: ModelSpec, layer: int, dtype: Any) -> Any:  # noqa: ANN401
    """Return a transformers model whose only layer is number `layer`, and whose vocabulary is a stub of zeros."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_utils import no_init_weights

    config = AutoConfig.from_pretrained(weights.directory, local_files_only=True)
    config.num_hidden_layers = 1
    config.vocab_size = _STUB_VOCAB_SIZE
    config.tie_word_embeddings = False
    config.pad_token_id = None
    config.architectures = [spec.architecture]
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer]]
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    prefix = f"model.layers.{layer}."
    state = {
        f"model.layers.0.{name.removeprefix(prefix)}": _tensor(weights, name, dtype)
        for name in weights.files
        if name.startswith(prefix) and not name.endswith(".rotary_emb.inv_freq")
    }
    stub = torch.zeros(_STUB_VOCAB_SIZE, spec.hidden_size, dtype=dtype)
    state |= {"model.embed_tokens.weight": stub, "lm_head.weight": stub.clone()}
    state["model.norm.weight"] = torch.ones(spec.hidden_size, dtype=dtype)
    model.load_state_dict(state, strict=True, assign=True)
    return model


def _tensor(weights: SourceWeights, name: str, dtype: Any) -> Any:  # noqa: ANN401
    """Return a weight as a tensor of its own in `dtype`."""
    from safetensors import safe_open

    with safe_open(weights.files[name].path, framework="pt") as file:
        return file.get_tensor(name).to(dtype)
