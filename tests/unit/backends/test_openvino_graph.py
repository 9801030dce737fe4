"""The compiled decoder computes what the formulas say, for every family and weight format, paged or not."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scalellm_trt.backends.openvino_compile import MODEL_FILE, compile_checkpoint
from scalellm_trt.checkpoint.reader import CheckpointReader
from tests.fakes.numpy_decoder import NumpyDecoder
from tests.fakes.tiny_checkpoints import write_checkpoint
from tests.fakes.tiny_models import tiny_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.checkpoint.config import QuantAlgo
    from scalellm_trt.checkpoint.dtypes import CheckpointDtype

ov = pytest.importorskip("openvino")

PROMPT = (5, 71, 33, 8, 8, 60, 2, 19)

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
FAMILIES: dict[str, dict[str, object]] = {
    "llama2_multi_head": {"num_key_value_heads": 4, "rope_theta": 10000.0},
    "llama3_grouped_scaled": {"rope_scaling": LLAMA3_SCALING},
    "llama_linear_scaled": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama_multi_query_tied": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "mistral": {"architectures": ["MistralForCausalLM"]},
    "qwen2_bias": {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True},
    "qwen3_norms_wide_heads": {"architectures": ["Qwen3ForCausalLM"], "head_dim": 32},
}


class StatefulRunner:
    """A compiled model run directly, with float32 keys and values."""

    def __init__(self, directory: Path) -> None:
        properties = {
            "KV_CACHE_PRECISION": "f32",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": 1,
        }
        self.compiled = ov.Core().compile_model(str(directory / MODEL_FILE), "CPU", properties)
        self.request = self.compiled.create_infer_request()

    def run(
        self,
        rows: Sequence[Sequence[int]],
        past: int = 0,
        mask: np.ndarray[Any, Any] | None = None,
        beam_idx: Sequence[int] | None = None,
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        ids = np.array(rows, np.int64)
        mask = np.ones((len(rows), past + ids.shape[1]), np.int64) if mask is None else mask
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)[:, past:]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "beam_idx": np.array(range(len(rows)) if beam_idx is None else beam_idx, np.int32),
        }
        logits: np.ndarray[Any, np.dtype[np.float32]] = self.request.infer(inputs)["logits"]
        return logits.copy()

    def matrix_precisions(self) -> list[str]:
        """Return the element type of every weight matrix as the plugin holds it, in order of execution."""
        return [
            node.input_value(1).get_element_type().get_type_name()
            for node in self.compiled.get_runtime_model().get_ordered_ops()
            if node.get_rt_info()["layerType"].astype(str) == "FullyConnected"
        ]


def compiled(
    tmp_path: Path,
    quant_algo: QuantAlgo | None = None,
    dtype: CheckpointDtype = "float16",
    changes: Mapping[str, object] = MappingProxyType({}),
) -> tuple[StatefulRunner, NumpyDecoder]:
    write_checkpoint(tmp_path / "checkpoint", tiny_spec(**changes), quant_algo=quant_algo, dtype=dtype)
    (tmp_path / "engine").mkdir()
    compile_checkpoint(tmp_path / "checkpoint", tmp_path / "engine", lambda _activity, _share: None)
    return StatefulRunner(tmp_path / "engine"), NumpyDecoder(CheckpointReader(tmp_path / "checkpoint"))


def relative_error(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_the_logits_of_the_formulas(tmp_path: Path, family: str) -> None:
    runner, reference = compiled(tmp_path, dtype="float32", changes=FAMILIES[family])
    expected = reference.logits(PROMPT)
    prompt = runner.run([PROMPT[:5]])[0]
    assert relative_error(prompt, expected[:5]) < 1e-5
    for position in range(5, len(PROMPT)):
        step = runner.run([[PROMPT[position]]], past=position)[0]
        assert relative_error(step, expected[position : position + 1]) < 1e-5


@pytest.mark.parametrize(
    ("quant_algo", "dtype", "precision"),
    [
        (None, "float16", "f16"),
        (None, "bfloat16", "bf16"),
        ("W8A16", "float16", "i8"),
        ("W8A16", "bfloat16", "i8"),
        ("W4A16", "float16", "i4"),
        ("W4A16_AWQ", "float16", "i4"),
        ("W4A16_AWQ", "bfloat16", "i4"),
    ],
)
def test_every_weight_format_runs_compressed_and_equals_its_dequantized_values(
    tmp_path: Path, quant_algo: QuantAlgo | None, dtype: CheckpointDtype, precision: str
) -> None:
    runner, reference = compiled(tmp_path, quant_algo, dtype)
    assert relative_error(runner.run([PROMPT])[0], reference.logits(PROMPT)) < 1e-5
    stored = "f16" if dtype == "float16" else "bf16"
    assert runner.matrix_precisions() == [precision] * 10 + [stored]


def test_activations_are_never_quantized(tmp_path: Path) -> None:
    runner, _ = compiled(tmp_path, "W8A16")
    assert runner.compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 0


def test_left_padding_does_not_change_a_row(tmp_path: Path) -> None:
    runner, reference = compiled(tmp_path)
    mask = np.ones((2, len(PROMPT)), np.int64)
    mask[1, :3] = 0
    logits = runner.run([PROMPT, (0, 0, 0, *PROMPT[:5])], mask=mask)
    assert relative_error(logits[0], reference.logits(PROMPT)) < 1e-5
    assert relative_error(logits[1, 3:], reference.logits(PROMPT[:5])) < 1e-5


def test_beam_idx_chooses_the_row_that_continues(tmp_path: Path) -> None:
    runner, reference = compiled(tmp_path)
    first, second = PROMPT[:4], PROMPT[4:]
    runner.run([first, second])
    logits = runner.run([[7], [9]], past=4, beam_idx=[1, 0])
    assert relative_error(logits[0], reference.logits((*second, 7))[4:]) < 1e-5
    assert relative_error(logits[1], reference.logits((*first, 9))[4:]) < 1e-5


@pytest.mark.parametrize("family", ["llama3_grouped_scaled", "llama_multi_query_tied", "qwen3_norms_wide_heads"])
def test_the_continuous_batching_pipeline_takes_the_graph_and_says_the_same(tmp_path: Path, family: str) -> None:
    genai = pytest.importorskip("openvino_genai")
    _, reference = compiled(tmp_path, changes=FAMILIES[family])
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 16
    properties = {"KV_CACHE_PRECISION": "f32", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    pipeline = genai.ContinuousBatchingPipeline(str(tmp_path / "engine"), scheduler, "CPU", properties)
    config = genai.GenerationConfig()
    config.max_new_tokens = 12
    config.set_eos_token_id(2)
    config.ignore_eos = True
    prompts = (PROMPT, PROMPT[2:5])
    handles = [
        pipeline.add_request(index, ov.Tensor(np.array([prompt], np.int64)), config)
        for index, prompt in enumerate(prompts)
    ]
    while pipeline.has_non_finished_requests():
        pipeline.step()
    for handle, prompt in zip(handles, prompts, strict=True):
        assert handle.read_all()[0].generated_ids == reference.greedy(prompt, 12)
