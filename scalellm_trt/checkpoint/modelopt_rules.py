"""TensorRT-LLM's format names in, ModelOpt's quantization rules out."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from scalellm_trt.checkpoint.config import NATIVE_ALGOS

if TYPE_CHECKING:
    from scalellm_trt.checkpoint.config import KvCacheQuantAlgo, QuantAlgo

_CONFIGS: Final = {
    "W4A16_AWQ": "INT4_AWQ_CFG",
    "W4A8_AWQ": "W4A8_AWQ_BETA_CFG",
    "W8A8_SQ_PER_CHANNEL": "INT8_SMOOTHQUANT_CFG",
    "FP8": "FP8_DEFAULT_CFG",
    "NVFP4": "NVFP4_DEFAULT_CFG",
}
# The quantizers of what attention multiplies: TensorRT-LLM's exporter looks at no other. With output quantizers on
# k_proj and v_proj, as NVIDIA's quantize.py sets them for INT8, the checkpoint silently has no KV scales.
_INT8_KV: Final = {"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {"num_bits": 8, "axis": None}}
# Without it ModelOpt's default 8-bit quantizers stay on.
_NOTHING: Final = {"quantizer_name": "*", "enable": False}


def rules_for(
    quant_algo: QuantAlgo | str | None, kv_cache_quant_algo: KvCacheQuantAlgo | None, group_size: int | None
) -> dict[str, Any]:
    """Return what `mtq.quantize` takes.

    Args:
        quant_algo: a weight format; none, or one that the compiler applies, leaves the weights alone.
        kv_cache_quant_algo: adds the quantizers of keys and values.
        group_size: replaces AWQ's 128.
    """
    import modelopt.torch.quantization as mtq

    if quant_algo is None or quant_algo in NATIVE_ALGOS:
        rules: dict[str, Any] = {"quant_cfg": [_NOTHING], "algorithm": "max"}
    else:
        rules = copy.deepcopy(getattr(mtq, _CONFIGS[quant_algo]))
    if group_size is not None:
        _set_group_size(rules, group_size)
    if kv_cache_quant_algo == "INT8":
        rules["quant_cfg"] = [*rules["quant_cfg"], dict(_INT8_KV)]
    elif kv_cache_quant_algo == "FP8":
        rules["quant_cfg"] = [*rules["quant_cfg"], *copy.deepcopy(mtq.FP8_KV_CFG["quant_cfg"])]
    return rules


def _set_group_size(rules: dict[str, Any], group_size: int) -> None:
    """Change the 4-bit blocks; W4A8's weights have a second quantizer, to FP8, without any."""
    for rule in rules["quant_cfg"]:
        if rule["quantizer_name"] == "*weight_quantizer" and "cfg" in rule:
            quantizers = rule["cfg"] if isinstance(rule["cfg"], list) else [rule["cfg"]]
            for quantizer in quantizers:
                if quantizer.get("block_sizes"):
                    quantizer["block_sizes"][-1] = group_size
