"""Small GGUF models, written on the spot: a decoder's tensors, a vocabulary, and the metadata that goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import quants
from tokenizers.pre_tokenizers import ByteLevel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

# Rows of 256 in one matrix of each layer: the K formats pack that many.
HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 64, 256, 4, 2, 16, 2

SPECIAL = ["<unk>", "<s>", "</s>"]
MERGES = [("h", "e"), ("Ġ", "t"), ("1", "2"), ("he", "l"), ("Ġ", "Ġ"), ("l", "o"), ("hel", "lo")]
BYTE_TOKENS = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(left + right for left, right in MERGES), "[TOOL]"]
BYTE_TYPES = [2, 3, 3, *[1] * (256 + len(MERGES)), 4]

PIECES = ["▁", "h", "e", "l", "o", "he", "ll", "▁he", "▁hell", "▁hello", "lo"]
PIECE_TOKENS = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
PIECE_TYPES = [2, 3, 3, *[6] * 256, *[1] * len(PIECES)]
PIECE_SCORES = [0.0] * 259 + [-1000.0] * 5 + [-float(rank) for rank in range(len(PIECES) - 5)]

Tensors = dict[str, "npt.NDArray[np.float32]"]


def hf_tensors(family: str = "llama", *, vocab_size: int = len(BYTE_TOKENS), is_tied: bool = True) -> Tensors:
    """Return random weights by their Hugging Face names, in Hugging Face's row order; each is exact in bfloat16."""
    rng = np.random.default_rng(7)

    def weights(*shape: int) -> npt.NDArray[np.float32]:
        values = rng.standard_normal(shape, dtype=np.float32)
        exact = values.view(np.uint32) & np.uint32(0xFFFF0000)
        return exact.view(np.float32)

    tensors = {"model.embed_tokens.weight": weights(vocab_size, HIDDEN), "model.norm.weight": weights(HIDDEN)}
    if not is_tied:
        tensors["lm_head.weight"] = weights(vocab_size, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        for projection, rows in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            tensors[f"{prefix}self_attn.{projection}_proj.weight"] = weights(rows * HEAD_DIM, HIDDEN)
            if family == "qwen2":
                tensors[f"{prefix}self_attn.{projection}_proj.bias"] = weights(rows * HEAD_DIM)
        if family == "qwen3":
            tensors[f"{prefix}self_attn.q_norm.weight"] = weights(HEAD_DIM)
            tensors[f"{prefix}self_attn.k_norm.weight"] = weights(HEAD_DIM)
        tensors[f"{prefix}self_attn.o_proj.weight"] = weights(HIDDEN, HEADS * HEAD_DIM)
        tensors[f"{prefix}mlp.gate_proj.weight"] = weights(INTERMEDIATE, HIDDEN)
        tensors[f"{prefix}mlp.up_proj.weight"] = weights(INTERMEDIATE, HIDDEN)
        tensors[f"{prefix}mlp.down_proj.weight"] = weights(HIDDEN, INTERMEDIATE)
        tensors[f"{prefix}input_layernorm.weight"] = weights(HIDDEN)
        tensors[f"{prefix}post_attention_layernorm.weight"] = weights(HIDDEN)
    return tensors


def gguf_name(hf_name: str) -> str:
    """Return llama.cpp's name of a Hugging Face tensor."""
    name = hf_name.replace("model.layers.", "blk.")
    for ours, theirs in (
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("_proj", ""),
    ):
        name = name.replace(ours, theirs)
    return name


def permuted(weight: npt.NDArray[np.float32], num_heads: int) -> npt.NDArray[np.float32]:
    """Reorder the rows of q or k as llama.cpp's converter does for the `llama` architecture."""
    halves = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write(
    path: Path,
    *,
    family: str = "llama",
    tensors: Tensors | None = None,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    tokenizer: str | None = "gpt2",
    metadata: Mapping[str, Any] | None = None,
    extra: Mapping[str, npt.NDArray[np.float32]] | None = None,
    without: Sequence[str] = (),
) -> Path:
    """Write a GGUF file.

    Args:
        path: where to.
        family: `llama`, `qwen2` or `qwen3`.
        tensors: by Hugging Face's names; `hf_tensors(family)` where not given.
        quantization: of the matrices whose rows are long enough for it; others are F16, vectors stay F32.
        tokenizer: `gpt2`, `llama` or None.
        metadata: keys to add or replace; a key with the value None is left out.
        extra: tensors to add, by llama.cpp's names.
        without: tensors to leave out, by llama.cpp's names.
    """
    values = {**_shape_metadata(family), **_vocabulary(tokenizer), **(metadata or {})}
    writer = gguf.GGUFWriter(path, values.pop("general.architecture"))
    for key, value in values.items():
        _add(writer, key, value)
    for name, weight in (hf_tensors(family) if tensors is None else tensors).items():
        if gguf_name(name) in without:
            continue
        if family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = permuted(weight, HEADS if "q_proj" in name else KV_HEADS)
        _add_tensor(writer, gguf_name(name), weight, quantization)
    for name, weight in (extra or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, weight: npt.NDArray[np.float32], kind: gguf.GGMLQuantizationType
) -> None:
    if weight.ndim == 1:
        kind = gguf.GGMLQuantizationType.F32
    elif weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = gguf.GGMLQuantizationType.F16
    if kind.name in ("Q4_K", "Q6_K"):  # the package can read these but not write them: any bytes are valid blocks
        writer.add_tensor(name, random_blocks(weight.shape, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, quants.quantize(weight, kind), raw_dtype=kind)


def random_blocks(shape: Sequence[int], kind: gguf.GGMLQuantizationType) -> npt.NDArray[np.uint8]:
    """Return random quantized rows whose float16 scales are small numbers."""
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(11)
    blocks = rng.integers(0, 256, (shape[0], shape[1] // block_size, block_bytes), dtype=np.uint8)
    scales = slice(0, 4) if kind.name == "Q4_K" else slice(208, 210)
    numbers = rng.uniform(0.001, 0.01, (*blocks.shape[:2], (scales.stop - scales.start) // 2)).astype(np.float16)
    blocks[..., scales] = numbers.view(np.uint8)
    return blocks.reshape(shape[0], -1)


def _shape_metadata(family: str) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "block_count": LAYERS,
        "context_length": 2048,
        "embedding_length": HIDDEN,
        "feed_forward_length": INTERMEDIATE,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 500000.0,
        "rope.dimension_count": HEAD_DIM,
    }
    return {"general.architecture": family, **{f"{family}.{key}": value for key, value in keys.items()}}


def _vocabulary(tokenizer: str | None) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    ids = {"bos": 1, "eos": 2, "unknown": 0}
    common = {f"tokenizer.ggml.{role}_token_id": number for role, number in ids.items()}
    if tokenizer == "llama":
        return {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": PIECE_TOKENS,
            "tokenizer.ggml.token_type": PIECE_TYPES,
            "tokenizer.ggml.scores": PIECE_SCORES,
            **common,
        }
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": BYTE_TOKENS,
        "tokenizer.ggml.token_type": BYTE_TYPES,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in MERGES],
        "tokenizer.chat_template": "{{ messages }}",
        **common,
    }


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
