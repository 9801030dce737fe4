"""Random models of every family: what is converted and compiled says what transformers says, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt import model_spec
from scalellm_trt.backends.openvino_compile import MODEL_FILE, compile_checkpoint
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.streaming import convert_weights

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

ov = pytest.importorskip("openvino")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("Llama", {"num_key_value_heads": 6}),
    "llama3": ("Llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING}),
    "llama_linear": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
}


def random_model(family: str, directory: Path) -> Any:
    """Save a model whose norms and biases are random too: fresh ones are all ones and zeros."""
    name, changes = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**{**SIZES, **changes}, eos_token_id=2)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias") or "norm" in parameter_name:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers(tmp_path: Path, family: str) -> None:
    model = random_model(family, tmp_path / "model")
    for name in ("checkpoint", "engine"):
        (tmp_path / name).mkdir()
    spec = model_spec.read(tmp_path / "model")
    config = config_for(spec, "full_prec", "float32")
    convert_weights(tmp_path / "model", config, tmp_path / "checkpoint", lambda _activity, _share: None)
    compile_checkpoint(tmp_path / "checkpoint", tmp_path / "engine", lambda _activity, _share: None)

    ids = np.random.default_rng(0).integers(0, spec.vocab_size, (2, 80))
    with torch.inference_mode():
        expected = model(torch.from_numpy(ids)).logits.numpy()
    properties = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(tmp_path / "engine" / MODEL_FILE, "CPU", properties)
    request = compiled.create_infer_request()
    for start, end in ((0, 60), (60, 79), (79, 80)):
        inputs = {
            "input_ids": ids[:, start:end],
            "attention_mask": np.ones((2, end), np.int64),
            "position_ids": np.tile(np.arange(start, end), (2, 1)),
            "beam_idx": np.arange(2, dtype=np.int32),
        }
        found = request.infer(inputs)["logits"]
        error = np.linalg.norm(found - expected[:, start:end]) / np.linalg.norm(expected[:, start:end])
        assert error < 1e-5
