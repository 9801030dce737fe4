from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalellm_trt.errors import ArtefactError, RecipeError
from scalellm_trt.triton import chat_template
from scalellm_trt.triton.chat_template import ChatTemplate

CHATML = (
    "{% for message in messages %}\n"
    "    {% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nBe kind<|im_end|>\\n' }}"
    "{% endif %}\n"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
USER = {"role": "user", "content": "Hi"}


def template(source: str, **special_tokens: str) -> ChatTemplate:
    return ChatTemplate(source=source, special_tokens=special_tokens, path=Path("tokenizer_config.json"))


def test_messages_become_the_prompt() -> None:
    assert template(CHATML).render([USER]) == (
        "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_generation_prompt_can_be_left_out() -> None:
    rendered = template(CHATML).render([{"role": "system", "content": "x"}, USER], add_generation_prompt=False)
    assert rendered == "<|im_start|>system\nx<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"


def test_special_tokens_have_their_names() -> None:
    assert (
        template("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", bos_token="<s>", eos_token="</s>").render(
            [USER]
        )
        == "<s>Hi</s>"
    )


def test_tojson_writes_what_a_tokenizer_should_see() -> None:
    assert template("{{ messages[0] | tojson }}").render([{"role": "user", "content": "<é & 'x'>"}]) == (
        '{"role": "user", "content": "<é & \'x\'>"}'
    )


def test_loops_can_be_left_early_and_the_date_be_asked() -> None:
    source = "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}"
    assert template(source).render([USER, USER]) == "Hi"
    assert len(template("{{ strftime_now('%Y') }}").render([USER])) == 4


def test_a_template_that_refuses_the_messages_is_the_users_to_fix() -> None:
    with pytest.raises(RecipeError, match="Conversation roles must alternate"):
        template("{{ raise_exception('Conversation roles must alternate') }}").render([USER])


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for x in range(999999999) %}{% endfor %}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(source: str) -> None:
    with pytest.raises(ArtefactError, match="the chat template fails"):
        template(f"{{{{ '' }}}}{source}{{{{ undefined.x }}}}").render([USER])


@pytest.mark.parametrize("source", ["{% if %}", "{{ messages[9].content }}", "{{ 1 / 0 }}", "{{ messages + 1 }}"])
def test_a_broken_template_is_an_artefact_error_with_the_way_out(source: str) -> None:
    with pytest.raises(ArtefactError, match=r"tokenizer_config\.json: the chat template fails(.|\n)*--raw"):
        template(source).render([USER])


def test_the_template_is_read_from_tokenizer_config(tmp_path: Path) -> None:
    config = {"chat_template": "{{ bos_token }}", "bos_token": {"content": "<s>", "lstrip": False}, "eos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = chat_template.load(tmp_path)
    assert loaded is not None
    assert loaded.special_tokens == {"bos_token": "<s>"}
    assert loaded.render([USER]) == "<s>"


def test_a_file_of_its_own_comes_first(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "old", "bos_token": "<s>"}))
    (tmp_path / "chat_template.jinja").write_text("new {{ bos_token }}")
    loaded = chat_template.load(tmp_path)
    assert loaded is not None
    assert loaded.render([USER]) == "new <s>"


def test_of_several_templates_the_default_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    loaded = chat_template.load(tmp_path)
    assert loaded is not None
    assert loaded.source == "plain"


@pytest.mark.parametrize("config", [None, {}, {"chat_template": None}, {"chat_template": [{"name": "x"}]}])
def test_a_model_without_a_template_has_none(tmp_path: Path, config: object) -> None:
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert chat_template.load(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_config_is_an_artefact_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"tokenizer_config\.json"):
        chat_template.load(tmp_path)
