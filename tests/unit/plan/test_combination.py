from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from scalellm_trt.errors import Problem, UnsupportedError
from tests.fakes.planning import make_gpu

if TYPE_CHECKING:
    from scalellm_trt.plan import Plan


def problems(**sections: Any) -> list[Problem]:
    with pytest.raises(UnsupportedError) as caught:
        make_gpu(**sections)
    assert caught.value.exit_code == 3
    return list(caught.value.problems)


def warnings(plan: Plan) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for decision in plan.decisions:
        if decision.is_warning:
            found.setdefault(decision.field, []).append(f"{decision.value}: {decision.reason}")
    return found


def formats(weights: str, kv_cache_dtype: str = "auto") -> dict[str, str]:
    return {"weights": weights, "kv_cache_dtype": kv_cache_dtype}


def test_a_refused_format_names_line_card_allowed_formats_and_reason() -> None:
    (problem,) = problems(hardware="a100-80g", quantization=formats("fp8"))
    assert str(problem).startswith(
        "recipes/x.yaml:7: quantization.weights: 'fp8' is not supported on compute capability"
    )
    assert "8.0 (a100-80g)" in problem.message
    assert "from compute capability 8.9 (Ada) on" in problem.message
    assert str(problem.hint).startswith("Allowed here: full_prec, int8_wo, int4_wo, int4_awq, int8_sq.")


def test_every_reason_is_reported_at_the_key_that_it_is_about() -> None:
    found = problems(hardware="t4", quantization=formats("fp8", "fp8"))
    assert [problem.key for problem in found] == ["quantization.weights", "quantization.kv_cache_dtype", "toolchain"]
    assert "NVIDIA/TensorRT-LLM#2620" in found[2].message
    assert "Allowed here: tensorrt-llm-0.13.0." in str(found[2].hint)


def test_a_backend_that_the_card_does_not_run_is_all_that_is_said() -> None:
    (problem,) = problems(hardware="rtx4090", backend="openvino", quantization=formats("fp8", "fp8"), toolchain="x")
    assert problem.key == "backend"


def test_the_side_effects_of_the_published_4090_configuration_are_said() -> None:
    said = warnings(make_gpu(quantization=formats("int8_wo", "fp8")))
    assert "switches paged context FMHA off" in said["serving.kv_cache_reuse"][0]
    assert "max_num_tokens has to cover the longest prompt" in said["serving.chunked_context"][0]
    assert any("UNCONFIRMED" in text for text in said["quantization.kv_cache_dtype"])
    assert any("prompts are multiplied in 16 bits" in text for text in said["quantization.weights"])


@pytest.mark.parametrize("name", ["kv_cache_reuse", "chunked_context"])
@pytest.mark.parametrize(("weights", "kv"), [("int8_wo", "fp8"), ("int4_awq", "int8")])
def test_a_key_that_contradicts_a_side_effect_is_refused(name: str, weights: str, kv: str) -> None:
    (problem,) = problems(quantization=formats(weights, kv), serving={name: True})
    assert problem.key == f"serving.{name}"
    assert f"Set serving.{name}: false" in str(problem.hint)


def test_16_bit_caches_and_fp8_throughout_keep_reuse_and_chunked_context() -> None:
    serving = {"kv_cache_reuse": True, "chunked_context": True}
    assert make_gpu(serving=serving).serving.chunked_context
    fp8 = make_gpu(quantization=formats("fp8", "fp8"), serving=serving)
    (suspect,) = warnings(fp8)["serving.kv_cache_reuse"]
    assert suspect.startswith("true: ")
    assert "NVIDIA/TensorRT-LLM#2699" in suspect


def test_an_int8_cache_calibrates_whatever_the_weights_are() -> None:
    plan = make_gpu(quantization=formats("int8_wo", "int8"))
    assert plan.quantization.calibration is not None
    assert "NVIDIA/TensorRT-LLM#1303" in " ".join(warnings(plan)["quantization.kv_cache_dtype"])
    assert make_gpu(quantization=formats("int8_wo", "fp8")).quantization.calibration is None


def test_the_cache_has_the_type_of_the_model_where_the_recipe_leaves_it_open() -> None:
    source = "hf:Qwen/Qwen2.5-7B-Instruct"
    assert make_gpu(model={"source": source, "dtype": "bfloat16"}).quantization.kv_cache_dtype == "bfloat16"
    assert make_gpu(model={"source": source}).quantization.kv_cache_dtype == "float16"


@pytest.mark.parametrize(("hardware", "dtype"), [("t4", "bfloat16"), ("rtx4090", "float32")])
def test_a_type_that_the_card_does_not_compute_is_refused(hardware: str, dtype: str) -> None:
    model = {"source": "hf:meta-llama/Llama-2-7b-chat-hf", "dtype": dtype}
    found = problems(hardware=hardware, toolchain="tensorrt-llm-0.13.0", model=model, quantization=formats("int4_wo"))
    assert "model.dtype" in [problem.key for problem in found]


def test_groups_without_kernels_are_refused_with_those_that_have_some() -> None:
    (problem,) = problems(quantization={"weights": "int4_awq", "group_size": 32})
    assert "no kernels" in problem.message
    assert problem.hint == "Allowed here: 64, 128."


def test_groups_divide_what_each_rank_holds() -> None:
    (problem,) = problems(quantization={"weights": "int4_awq"}, parallel={"tp_size": 8})
    assert "intermediate_size 1728 on each of 8 ranks" in problem.message
    assert problem.hint == "Allowed here: 64."


def test_rules_about_a_model_apply_to_it_alone() -> None:
    mixtral = {"source": "hf:mistralai/Mixtral-8x7B-Instruct-v0.1"}
    (problem,) = problems(hardware="h100", model=mixtral, quantization=formats("int8_sq"))
    assert "MixtralForCausalLM" in problem.message
    assert make_gpu(hardware="h100", quantization=formats("int8_sq")).quantization.weights == "int8_sq"


def test_an_architecture_that_the_toolchain_does_not_know_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="MixtralForCausalLM is not supported by openvino"):
        make_gpu(
            hardware="cpu", backend="openvino", model={"source": "hf:mistralai/Mixtral-8x7B-Instruct-v0.1"},
            quantization=formats("int8_wo"),
        )  # fmt: skip


def test_awq_with_an_fp8_cache_is_refused_on_the_pytorch_backend_with_the_issue() -> None:
    (problem,) = problems(backend="llmapi", quantization=formats("int4_awq", "fp8"))
    assert "NVIDIA/TensorRT-LLM#8862" in problem.message
    assert problem.hint == "Allowed here: auto."
