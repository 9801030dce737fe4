"""The import of a real model: what it costs, what a kill leaves, and that its tokenizer is the model's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from scalellm_trt import model_spec
from scalellm_trt.model_source import layout, resolve
from tests.fakes import real_model

if TYPE_CHECKING:
    from scalellm_trt.model_spec import ModelSpec

pytestmark = pytest.mark.integration

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "smollm2_tokens.json").read_text())
IMPORT_CODE = """
import resource, sys, time
from pathlib import Path
from scalellm_trt.model_source import resolve

started = time.perf_counter()
model = resolve(f"gguf:{sys.argv[1]}", None, Path(sys.argv[2]), lambda activity, share: None, base_dir=Path())
print(model.directory, time.perf_counter() - started)
"""


@pytest.fixture(scope="module")
def directory() -> Path:
    return real_model.smollm2()


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda vector: ascii(vector["text"][:24]))
def test_tokens_are_those_of_llama_cpp(tokenizer: Tokenizer, vector: dict[str, object]) -> None:
    assert tokenizer.encode(vector["text"]).ids == vector["ids"]


def test_every_digit_is_a_token(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("12345").tokens == ["1", "2", "3", "4", "5"]


# The model's own vocabulary lacks 21 bytes: those that no UTF-8 has, those that begin U+40000 to U+BFFFF (planes with
# no characters), and six control characters. They are dropped, by the original and by llama.cpp as well.
KNOWN_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\x04\x06\x13\x14\x16\x1d").filter(
    lambda character: not 0x40000 <= ord(character) < 0xC0000
)


@settings(max_examples=200, deadline=None)
@given(text=st.text(KNOWN_CHARACTERS) | st.text(alphabet="aB1 \n\t.'é漢🙂<|>_"))
def test_decoding_gives_the_encoded_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_config_has_the_models_own_numbers(directory: Path) -> None:
    # From the model card's config.json, https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct.
    spec: ModelSpec = model_spec.read(directory)
    assert spec == model_spec.ModelSpec(
        architecture="LlamaForCausalLM",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        rope_theta=100000.0,
        rope_scaling=None,
        rms_norm_eps=1e-05,
        tie_word_embeddings=True,
        attention_bias=False,
        qk_norm=False,
        bos_token_id=1,
        eos_token_ids=(2,),
    )


def test_an_import_takes_seconds_and_the_second_none(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", IMPORT_CODE, str(real_model.smollm2_gguf()), str(tmp_path)]
    cold, warm = (float(subprocess.check_output(argv, text=True).split()[-1]) for _ in range(2))
    assert warm < cold / 3  # 3 s and 0.1 s on two quiet cores


def test_a_kill_at_any_moment_leaves_nothing_in_use(tmp_path: Path) -> None:
    file = real_model.smollm2_gguf()
    argv = [sys.executable, "-c", IMPORT_CODE, str(file), str(tmp_path)]
    imported = tmp_path / "imported"
    for delay_s in (0.0, 0.3, 1.0):
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        while child.poll() is None and not imported.exists():
            time.sleep(0.01)
        time.sleep(delay_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        child.wait()
        whole = [path for path in imported.iterdir() if path.suffix != ".partial"]
        for path in whole:
            layout.check_directory(path, "m")
    model = resolve(f"gguf:{file}", real_model.SHA256, tmp_path, lambda activity, share: None, base_dir=Path())
    assert [path.name for path in imported.iterdir()] == [model.directory.name]
    assert (
        model.digest
        == resolve(
            real_model.SOURCE, real_model.SHA256, real_model.cache_dir(), lambda activity, share: None, base_dir=Path()
        ).digest
    )
