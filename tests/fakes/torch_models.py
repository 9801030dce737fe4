"""Random models of transformers, small enough to quantize in a second, and samples for them; needs `[quantize]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.checkpoint.calibration import CalibrationSamples

if TYPE_CHECKING:
    from pathlib import Path

# A vocabulary that 64 does not divide: ModelOpt pads it when it exports AWQ.
VOCAB_SIZE = 100
SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 64,
    "rope_theta": 50000.0,
}
EXTRAS: dict[str, dict[str, int]] = {"Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2}}


def random_model(family: str, directory: Path, **changes: object) -> Any:
    """Save a random float16 model of transformers and return it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("modelopt")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **{**SIZES, **EXTRAS.get(family, {}), "sliding_window": None, **changes}
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).half().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # freshly made they are all ones and zeros
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    model.save_pretrained(directory, max_shard_size="100KB")
    return model


def samples() -> CalibrationSamples:
    rng = np.random.default_rng(0)
    ids = tuple(rng.integers(0, VOCAB_SIZE, 32).astype(np.int32) for _ in range(3))
    return CalibrationSamples(source="random", token_ids=ids, max_seq_len=32, seed=0)
