"""`formats` and `unified`: which formats exist for which model, and what each needs, decided without torch."""

from __future__ import annotations

import pytest

from scalellm_trt.checkpoint.config import render
from scalellm_trt.checkpoint.formats import config_for, needs_calibration
from scalellm_trt.checkpoint.unified import unified_problems
from scalellm_trt.errors import UnsupportedError
from scalellm_trt.plan import QuantizationPlan
from tests.fakes.tiny_models import tiny_spec

MIXTRAL = {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("weights", "kv_cache_dtype", "is_calibrated"),
    [
        ("full_prec", "float16", False),
        ("int8_wo", "fp8", False),
        ("int4_wo", "bfloat16", False),
        ("int8_wo", "int8", True),
        ("fp8", "float16", True),
        ("int4_awq", "float16", True),
        ("int8_sq", "int8", True),
    ],
)
def test_only_packed_weights_and_int8_caches_are_calibrated(
    weights: str, kv_cache_dtype: str, is_calibrated: bool
) -> None:
    config = config_for(tiny_spec(), weights, "float16", kv_cache_dtype, group_size=16)  # type: ignore[arg-type]
    assert needs_calibration(config) is is_calibrated


def test_every_router_is_excluded_by_name_from_packed_formats_only() -> None:
    spec = tiny_spec(**MIXTRAL)
    packed = render(config_for(spec, "fp8", "float16"))["quantization"]
    assert packed == {
        "quant_algo": "FP8",
        "kv_cache_quant_algo": None,
        "exclude_modules": ["transformer.layers.0.mlp.router", "transformer.layers.1.mlp.router", "lm_head"],
    }
    native = render(config_for(spec, "int8_wo", "float16"))["quantization"]
    assert native == {"quant_algo": "W8A16", "kv_cache_quant_algo": None, "exclude_modules": None}


def test_a_format_of_the_other_backend_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"'nvfp4' has no form.*\n.*nvfp4 is for backend llmapi"):
        config_for(tiny_spec(), "nvfp4", "float16")


def test_the_unified_checkpoint_refuses_int8_caches_and_formats_of_engines() -> None:
    plan = QuantizationPlan(weights="int8_sq", group_size=None, kv_cache_dtype="int8", calibration=None)
    keys = [problem.key for problem in unified_problems(tiny_spec(), plan)]
    assert keys == ["quantization.weights", "quantization.kv_cache_dtype"]
    plan = QuantizationPlan(weights="int4_awq", group_size=40, kv_cache_dtype="float16", calibration=None)
    assert [problem.key for problem in unified_problems(tiny_spec(), plan)] == ["quantization.group_size"]
    plan = QuantizationPlan(weights="nvfp4", group_size=None, kv_cache_dtype="fp8", calibration=None)
    assert unified_problems(tiny_spec(), plan) == []
