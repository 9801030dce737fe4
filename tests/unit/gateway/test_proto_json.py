from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2, service_pb2

from scalellm_trt.gateway.proto_json import as_json


def test_integers_are_numbers_and_enumerations_names() -> None:
    tensor = model_config_pb2.ModelInput(name="a", data_type="TYPE_INT32", dims=[-1, 2**40])
    found = as_json(tensor)
    assert (found["name"], found["data_type"], found["dims"]) == ("a", "TYPE_INT32", [-1, 2**40])


def test_what_was_not_set_has_its_default_unless_it_can_be_absent() -> None:
    found = as_json(model_config_pb2.ModelConfig(name="m"))
    assert (found["backend"], found["max_batch_size"], found["input"], found["parameters"]) == ("", 0, [], {})
    assert "version_policy" not in found
    assert "dynamic_batching" not in found


def test_maps_and_messages_are_objects_and_bytes_are_base64() -> None:
    config: Any = model_config_pb2.ModelConfig()
    config.parameters["k"].string_value = "v"
    config.model_transaction_policy.decoupled = True
    found = as_json(config)
    assert found["parameters"] == {"k": {"string_value": "v"}}
    assert found["model_transaction_policy"] == {"decoupled": True}
    assert as_json(service_pb2.InferTensorContents(bytes_contents=[b"\xff"]))["bytes_contents"] == ["/w=="]
