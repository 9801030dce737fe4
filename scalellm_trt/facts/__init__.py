"""`data/*.yaml` in, typed rows out: hardware, toolchains, formats, combinations, models; one file per kind of row."""

from scalellm_trt.facts.combinations import (
    Combination,
    Effect,
    EffectName,
    Rule,
    combination,
    combination_rules,
    parse_rule,
)
from scalellm_trt.facts.formats import (
    KvCacheSupport,
    WeightSupport,
    kv_cache_formats,
    parse_kv_cache_format,
    parse_weight_format,
    weight_formats,
)
from scalellm_trt.facts.hardware import Hardware, HardwareKind, hardware, hardware_of, parse_hardware
from scalellm_trt.facts.models import ModelRow, model_from, models, parse_model
from scalellm_trt.facts.rows import Origin, nearest, parse_rows
from scalellm_trt.facts.toolchains import (
    GpuToolchain,
    HostToolchain,
    Toolchain,
    default_toolchain,
    parse_toolchain,
    toolchains,
)

__all__ = [
    "Combination",
    "Effect",
    "EffectName",
    "GpuToolchain",
    "Hardware",
    "HardwareKind",
    "HostToolchain",
    "KvCacheSupport",
    "ModelRow",
    "Origin",
    "Rule",
    "Toolchain",
    "WeightSupport",
    "combination",
    "combination_rules",
    "default_toolchain",
    "hardware",
    "hardware_of",
    "kv_cache_formats",
    "model_from",
    "models",
    "nearest",
    "parse_hardware",
    "parse_kv_cache_format",
    "parse_model",
    "parse_rows",
    "parse_rule",
    "parse_toolchain",
    "parse_weight_format",
    "toolchains",
    "weight_formats",
]
