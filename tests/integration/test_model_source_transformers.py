"""The imported weights against transformers' own reading of the same GGUF file, tensor by tensor."""

from __future__ import annotations

import pytest

from tests.fakes import real_model

pytestmark = pytest.mark.integration

torch = pytest.importorskip("torch", reason="needs the extra [quantize]")
transformers = pytest.importorskip("transformers", reason="needs the extra [quantize]")


@pytest.mark.filterwarnings("ignore")  # transformers' and torch's own
def test_weights_are_those_that_transformers_reads_rounded_to_float16() -> None:
    gguf, directory = real_model.smollm2_gguf(), real_model.smollm2()
    load = transformers.AutoModelForCausalLM.from_pretrained
    theirs = load(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).state_dict()
    ours = load(directory, dtype=torch.float32).state_dict()
    assert set(ours) == set(theirs)
    different = [name for name, weight in theirs.items() if not torch.equal(weight.half().float(), ours[name])]
    assert different == []


@pytest.mark.filterwarnings("ignore")
def test_the_saved_tokenizer_is_one_that_transformers_loads() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(real_model.smollm2())
    assert tokenizer.encode("12345") == [33, 34, 35, 36, 37]
    assert tokenizer.eos_token == "<|im_end|>"
    messages = [{"role": "user", "content": "Hi 1+1\n"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi 1+1\n<|im_end|>\n<|im_start|>assistant\n"
    )
