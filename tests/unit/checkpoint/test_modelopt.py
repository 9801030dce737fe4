"""`modelopt`: what is decided before torch is imported. The quantizing itself is in tests/integration."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import sys
import warnings

import numpy as np
import pytest

from scalellm_trt.checkpoint.calibration import CalibrationSamples
from scalellm_trt.checkpoint.config import render
from scalellm_trt.checkpoint.formats import config_for
from scalellm_trt.checkpoint.layerwise import calibration_batches
from scalellm_trt.checkpoint.modelopt import quiet, tool_versions
from scalellm_trt.errors import StageError, ToolchainError, UnsupportedError
from tests.fakes.tiny_models import tiny_spec


def test_an_awq_config_says_its_group_and_kv_cache() -> None:
    config = config_for(tiny_spec(), "int4_awq", "float16", "fp8", group_size=32)
    assert render(config)["quantization"] == {
        "quant_algo": "W4A16_AWQ",
        "kv_cache_quant_algo": "FP8",
        "group_size": 32,
        "has_zero_point": False,
        "pre_quant_scale": True,
        "exclude_modules": ["lm_head"],
    }


def test_a_group_that_does_not_divide_is_refused_with_those_that_do() -> None:
    spec = tiny_spec(hidden_size=576, num_attention_heads=9, num_key_value_heads=3, head_dim=64, intermediate_size=1536)
    with pytest.raises(UnsupportedError) as caught:
        config_for(spec, "int4_awq", "float16", group_size=128)
    text = str(caught.value)
    assert "quantization.group_size: 128 does not divide the input dimensions 576, 1536" in text
    assert "These do: 16, 24, 32, 48, 64, 96, 192." in text
    assert config_for(spec, "int4_awq", "float16", group_size=64).group_size == 64


def test_an_odd_number_of_rows_cannot_be_packed() -> None:
    with pytest.raises(UnsupportedError, match="packs two output rows"):
        config_for(tiny_spec(intermediate_size=97), "int4_awq", "float16", group_size=1)


@pytest.mark.parametrize("missing", ["torch", "transformers", "nvidia-modelopt"])
def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def version(name: str) -> str:
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.47.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ToolchainError, match=rf"needs {missing}.*\n.*pip install 'scalellm-trt\[quantize\]'"):
        tool_versions()


def test_an_old_modelopt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.37.0")
    with pytest.raises(ToolchainError, match=r"0\.44 or newer, found 0\.37\.0"):
        tool_versions()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.47.1rc1")
    assert set(tool_versions()) == {"torch", "transformers", "nvidia-modelopt"}


def test_a_failure_of_a_library_becomes_ours_with_what_it_printed() -> None:
    terminal = io.StringIO()

    def work() -> None:
        with quiet(lambda activity, _: print(activity)) as report:
            report("working", 0.5)
            print("last words")
            warnings.warn("noise", stacklevel=1)
            message = "no"
            raise ValueError(message)

    with contextlib.redirect_stdout(terminal), pytest.raises(StageError, match=r": no\n  last words\n.*int8_wo"):
        work()
    assert terminal.getvalue() == "working\n"
    assert sys.stdout is not terminal


def test_our_own_errors_and_interrupts_pass() -> None:
    for error in (UnsupportedError([]), KeyboardInterrupt()):
        with pytest.raises(type(error)), quiet(lambda *_: None):
            raise error


def test_samples_of_one_length_share_batches_and_none_is_lost() -> None:
    lengths = [512, 100, 512, 512, 512, 4000, 512]
    ids = tuple(np.full(length, index, np.int32) for index, length in enumerate(lengths))
    batches = calibration_batches(CalibrationSamples(source="x", token_ids=ids, max_seq_len=4000, seed=0))
    assert [batch.shape for batch in batches] == [(4, 512), (1, 512), (1, 100), (1, 4000)]
    assert [batch[:, 0].tolist() for batch in batches] == [[0, 2, 3, 4], [6], [1], [5]]
    assert {batch.dtype for batch in batches} == {np.dtype(np.int64)}
