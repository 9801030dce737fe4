from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scalellm_trt.artefacts.types import TritonTensor
from scalellm_trt.errors import ArtefactError
from scalellm_trt.triton import model_config
from tests.fakes.triton_models import TEXT_INPUT, make_model

GOLDENS = Path(__file__).parents[2] / "goldens"
ROOT = Path("/models")


def test_the_text_of_a_model_is_the_golden_text() -> None:
    assert model_config.render(make_model("echo"), ROOT) == (GOLDENS / "config_echo.pbtxt").read_text()


def test_the_order_of_parameters_does_not_change_the_text() -> None:
    model = make_model("echo")
    turned = dataclasses.replace(model, parameters=dict(reversed(list(model.parameters.items()))))
    assert model_config.render(turned, ROOT) == model_config.render(model, ROOT)


def test_the_text_reads_back_as_the_model_through_tritons_schema() -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = text_format.Parse(model_config.render(make_model("echo"), ROOT), model_config_pb2.ModelConfig())
    assert config.model_transaction_policy.decoupled
    assert not config.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    ]
    assert [(tensor.name, tensor.data_type, list(tensor.dims), tensor.optional) for tensor in config.input] == [
        ("text_input", model_config_pb2.TYPE_STRING, [1], False),
        ("max_tokens", model_config_pb2.TYPE_INT32, [1], True),
    ]
    assert config.output[1].dims == [-1]
    assert config.default_model_filename == "model.py"


@pytest.mark.parametrize(
    "value", ['say "hi"', "back\\slash", "two\nlines", "tab\t", "é→中🙂", "\x00\x1f\x7f", "7\x017", "{% for m in x %}"]
)
def test_any_parameter_value_survives(value: str) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = model_config.render(dataclasses.replace(make_model("echo"), parameters={"value": value}), ROOT)
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.parameters["value"].string_value == value
    assert text.isascii()


def test_a_zero_batch_size_and_absent_fields_read_back() -> None:
    model = dataclasses.replace(
        make_model("plain"), max_batch_size=0, default_model_filename=None, parameters={}, outputs=()
    )
    assert "default_model_filename" not in model_config.render(model, ROOT)


def test_a_placeholder_is_refused_with_its_line() -> None:
    model = dataclasses.replace(make_model("echo"), parameters={"engine_dir": "${engine_dir}"})
    with pytest.raises(ArtefactError, match=r'key: "engine_dir" value \{ string_value: "\$\{engine_dir\}"'):
        model_config.render(model, ROOT)


@pytest.mark.parametrize("name", ["", ".hidden", "-flag", "a/b", "..", "a b", "ünicode", "x" * 129, "a\n"])
def test_a_name_that_cannot_be_a_directory_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(ArtefactError, match="cannot be the name of a Triton model"):
        model_config.render(make_model(name), ROOT)


def test_a_tensor_listed_twice_is_refused_by_name() -> None:
    model = dataclasses.replace(make_model("echo"), inputs=(TEXT_INPUT, TEXT_INPUT))
    with pytest.raises(ArtefactError, match="listed twice: text_input"):
        model_config.render(model, ROOT)


def test_a_data_type_that_triton_does_not_know_is_our_mistake_and_named() -> None:
    broken = TritonTensor(name="x", data_type="TYPE_INT7", dims=(1,))  # type: ignore[arg-type]
    with pytest.raises(ArtefactError, match="TYPE_INT7"):
        model_config.render(dataclasses.replace(make_model("echo"), inputs=(broken,)), ROOT)
