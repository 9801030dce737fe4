from __future__ import annotations

from typing import Any

from tests.fakes.planning import make_gpu


def warnings(field: str, **sections: Any) -> str:
    return " ".join(d.reason for d in make_gpu(**sections).decisions if d.field == field and d.is_warning)


T4 = {
    "hardware": "t4",
    "toolchain": "tensorrt-llm-0.13.0",
    "quantization": {"weights": "int4_wo"},
    "limits": {"max_batch_size": 2, "max_input_len": 1024, "max_seq_len": 2048, "max_num_tokens": 2048},
    "serving": {"kv_cache_tokens": 4096},
}


def test_a_geforce_card_is_told_of_its_half_rate_and_of_the_display() -> None:
    said = warnings("hardware")
    assert "165.2 TFLOPS" in said
    assert "display" in said
    assert "GeForce" not in warnings("hardware", hardware="l4")


def test_a_13b_model_on_a_t4_is_told_that_a_7b_serves_it_better() -> None:
    # 2 x 12,687,769,600 weights x 1,024 tokens at 0.75 x 24 TFLOPS.
    assert "a prompt of 1024 tokens takes about 1.4 s (estimate); a 7B model" in warnings("hardware", **T4)
    small = T4 | {"model": {"source": "hf:meta-llama/Llama-2-7b-chat-hf"}}
    assert "about 0.7 s" in warnings("hardware", **small)
    assert "a 7B model" not in warnings("hardware", **small)


def test_a_gated_model_is_told_with_the_way_round() -> None:
    said = warnings("model.source")
    assert "HF_TOKEN" in said
    assert "rtx4090-open.yaml" in said
    assert warnings("model.source", model={"source": "hf:Qwen/Qwen2.5-7B-Instruct"}) == ""


def test_what_is_not_known_of_the_image_is_said() -> None:
    assert "compute capability 7.5 is UNCONFIRMED" in warnings("toolchain", **T4)
