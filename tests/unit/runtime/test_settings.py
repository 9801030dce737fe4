"""service.json is read back exactly as written, and refused with the key that is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.runtime import settings
from scalellm_trt.runtime.settings import ServiceSettings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL: dict[str, object] = {
    "engine": "openvino",
    "engine_directory": "engine",
    "vocab_size": 49152,
    "eos_token_ids": [2],
    "max_batch_size": 16,
    "max_input_len": 1000,
    "max_seq_len": 2048,
    "max_num_tokens": 512,
    "kv_cache_tokens": 4096,
}


def test_settings_survive_a_trip_through_json() -> None:
    written = settings.from_json({**MINIMAL, "bos_token_id": 1, "kv_cache_precision": "u8", "num_threads": 2})
    assert settings.from_json(json.loads(json.dumps(written.to_json()))) == written


def test_defaults_fill_what_is_not_written() -> None:
    read = settings.from_json(MINIMAL)
    assert read.kv_cache_precision == "f16"
    assert read.batch_scheduler_policy == "guaranteed_no_evict"
    assert read.num_kv_blocks == 128
    assert isinstance(read, ServiceSettings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_batchsize": 3}, "max_batchsize: no such setting"),
        ({"engine": "vllm"}, "engine: must be one of openvino, tensorrt_llm, llmapi, found 'vllm'"),
        ({"vocab_size": "many"}, "vocab_size: must be int, found 'many'"),
        ({"vocab_size": True}, "vocab_size: must be int, found True"),
        ({"eos_token_ids": 2}, "eos_token_ids: must be a list"),
        ({"eos_token_ids": []}, "eos_token_ids: must name at least one id"),
        ({"kv_cache_tokens": 100}, "kv_cache_tokens: must be a multiple of 32"),
        ({"max_batch_size": 0}, "max_batch_size: must be at least 1"),
        ({"max_input_len": 2048}, "max_input_len: must be below max_seq_len"),
    ],
)
def test_a_wrong_setting_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message.replace("(", r"\(")):
        settings.from_json({**MINIMAL, **change})


def test_a_missing_setting_is_named() -> None:
    raw = {key: value for key, value in MINIMAL.items() if key != "vocab_size"}
    with pytest.raises(SettingsError, match="vocab_size: is missing"):
        settings.from_json(raw)


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / settings.FILE_NAME
    path.write_text(content)
    with pytest.raises(SettingsError, match=str(path)):
        settings.read(path)
