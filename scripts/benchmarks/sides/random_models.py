"""Small models of transformers with random weights, in every shape that checkpoints are written for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

FAMILIES: Final = ("Llama", "Mixtral", "Qwen2", "Qwen3")
# A vocabulary that 64 does not divide: ModelOpt pads it when it exports AWQ.
VOCAB_SIZE: Final = 100
_SIZES: Final = {
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
_EXTRAS: Final[dict[str, dict[str, int]]] = {"Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2}}


def save_random_model(family: str, directory: Path, **changes: object) -> Any:  # noqa: ANN401  torch is not typed here
    """Save a random float16 model in several shards and return it; `changes` are fields of its config."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **{**_SIZES, **_EXTRAS.get(family, {}), "sliding_window": None, **changes}
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).half().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:  # freshly made they are all ones and zeros
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    model.save_pretrained(directory, max_shard_size="100KB")
    return model
