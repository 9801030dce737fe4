"""The unified checkpoint beside ModelOpt's own `export_hf_checkpoint` of the whole model; needs `[quantize]`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from scalellm_trt import model_spec
from scalellm_trt.checkpoint.layerwise import calibration_batches
from scalellm_trt.checkpoint.modelopt_rules import rules_for
from scalellm_trt.checkpoint.source import SourceWeights
from scalellm_trt.checkpoint.unified import QUANT_ALGOS, write_unified
from scalellm_trt.checkpoint.unified_verify import verify_unified
from scalellm_trt.plan import QuantizationPlan
from scalellm_trt.recipe import Calibration
from tests.fakes import small_tokenizer
from tests.fakes.torch_models import random_model

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.checkpoint.calibration import CalibrationSamples
    from scalellm_trt.plan import ResolvedKvCacheDtype
    from scalellm_trt.recipe import WeightFormat

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]


def export_whole_model(
    model_dir: Path, family: str, plan: QuantizationPlan, samples: CalibrationSamples, out_dir: Path
) -> None:
    import modelopt.torch.quantization as mtq
    import torch
    import transformers
    from modelopt.torch.export import export_hf_checkpoint

    model = getattr(transformers, f"{family}ForCausalLM").from_pretrained(model_dir, dtype=torch.float32).eval()
    batches = [torch.from_numpy(batch) for batch in calibration_batches(samples)]
    algo, kv_algo = QUANT_ALGOS[plan.weights], "FP8" if plan.kv_cache_dtype == "fp8" else None
    rules = rules_for(algo, kv_algo, plan.group_size)  # type: ignore[arg-type]
    mtq.quantize(model, rules, lambda module: [module(batch) for batch in batches])
    with torch.inference_mode():
        export_hf_checkpoint(model, dtype=torch.float32, export_dir=out_dir)


@pytest.mark.parametrize(
    ("family", "weights", "kv_cache_dtype"),
    [
        ("Llama", "fp8", "fp8"),
        ("Llama", "int4_awq", "float16"),
        ("Llama", "w4a8_awq", "fp8"),
        ("Llama", "nvfp4", "fp8"),
        ("Qwen2", "fp8", "float16"),
        ("Mixtral", "fp8", "fp8"),
        ("Mixtral", "nvfp4", "float16"),
    ],
)
def test_the_files_hold_what_modelopt_exports_of_the_whole_model(
    tmp_path: Path, family: str, weights: WeightFormat, kv_cache_dtype: ResolvedKvCacheDtype
) -> None:
    model_dir = tmp_path / "model"
    random_model(family, model_dir, vocab_size=300)
    small_tokenizer.write(model_dir)
    spec = model_spec.read(model_dir)
    plan = QuantizationPlan(
        weights=weights,
        group_size=32 if weights.endswith("awq") else None,
        kv_cache_dtype=kv_cache_dtype,
        calibration=Calibration(num_samples=3, max_seq_len=32),
    )
    shares: list[float] = []
    (tmp_path / "ours").mkdir()
    write_unified(
        model_dir, spec, plan, tmp_path / "ours", lambda _, share: shares.append(share), dtype="float32", device="cpu"
    )
    assert shares == sorted(shares)
    assert verify_unified(tmp_path / "ours", spec) == []
    assert verify_unified(tmp_path / "ours") == []
    from scalellm_trt.checkpoint.write import calibration_samples

    export_whole_model(model_dir, family, plan, calibration_samples(model_dir, plan), tmp_path / "theirs")
    ours, theirs = SourceWeights(tmp_path / "ours"), SourceWeights(tmp_path / "theirs")
    assert ours.files.keys() == theirs.files.keys()
    for name, file in ours.files.items():
        other = theirs.files[name]
        assert file.dtype(name) == other.dtype(name), name
        np.testing.assert_array_equal(file.raw(name), other.raw(name), err_msg=name)
    for config in ("hf_quant_config.json", "config.json"):
        one, two = (json.loads((tmp_path / side / config).read_text()) for side in ("ours", "theirs"))
        key = "quantization" if config.startswith("hf") else "quantization_config"
        assert one[key] == two[key]


def test_a_16_bit_model_is_a_copy_in_the_wanted_type(tmp_path: Path) -> None:
    random_model("Llama", tmp_path / "model")
    spec = model_spec.read(tmp_path / "model")
    plan = QuantizationPlan(weights="full_prec", group_size=None, kv_cache_dtype="float16", calibration=None)
    (tmp_path / "ours").mkdir()
    write_unified(tmp_path / "model", spec, plan, tmp_path / "ours", lambda *_: None, dtype="bfloat16")
    assert verify_unified(tmp_path / "ours", spec) == []
    assert {file.dtype(name) for name, file in SourceWeights(tmp_path / "ours").files.items()} == {"BF16"}
    assert "quantization_config" not in json.loads((tmp_path / "ours" / "config.json").read_text())
