"""The description is of what is served: the same schemas check requests, and real replies fit it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import jsonschema
import pytest

from scalellm_trt.gateway import openapi, refused
from tests.fakes.gateways import MODEL

if TYPE_CHECKING:
    from tests.fakes.gateways import RunningGateway
    from tests.fakes.token_server import TokenServer

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"model": MODEL, "prompt": "abc"}


def _schema(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": openapi.description()["components"]}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/chat/completions", CHAT, "ChatCompletion"),
        ("/v1/chat/completions", {**CHAT, "logprobs": True, "n": 2}, "ChatCompletion"),
        ("/v1/completions", COMPLETION, "Completion"),
        ("/v1/completions", {**COMPLETION, "logprobs": 0, "max_tokens": 2}, "Completion"),
        ("/predict", {"text": "Hi"}, "Prediction"),
        ("/predict", {}, "Error"),
        ("/v1/completions", {**COMPLETION, "model": "x"}, "Error"),
    ],
)
def test_a_reply_is_as_described(
    gateway: RunningGateway, server: TokenServer, path: str, body: dict[str, Any], name: str
) -> None:
    reply = httpx.post(gateway.url + path, json=body).json()
    jsonschema.validate(reply, _schema(name))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**reply, "unheard_of": 1}, _schema(name))


def test_models_are_as_described(gateway: RunningGateway) -> None:
    jsonschema.validate(httpx.get(f"{gateway.url}/v1/models").json(), _schema("ModelList"))
    jsonschema.validate(httpx.get(f"{gateway.url}/v1/models/{MODEL}").json(), _schema("Model"))


def test_it_is_served_with_the_models_that_are_offered(gateway: RunningGateway) -> None:
    served = httpx.get(f"{gateway.url}/openapi.json").json()
    schemas = served["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"]["model"].pop("enum") == [MODEL]
    assert schemas["CompletionRequest"]["properties"]["model"].pop("enum") == [MODEL]
    assert served == openapi.description()


def test_every_field_that_may_be_given_is_described() -> None:
    described = openapi.description()["components"]["schemas"]["ChatRequest"]["properties"]
    assert {name for name, refusal in refused.IN_REQUESTS.items() if refusal.neutral} <= described.keys()
    assert "audio" not in described
    assert described["store"]["enum"] == [False, None]
    assert described["min_p"]["enum"] == [0.0, None]


def test_every_request_in_a_description_is_known_by_its_path(gateway: RunningGateway) -> None:
    for path, operations in openapi.description()["paths"].items():
        for method in operations:
            url = gateway.url + path.replace("{model}", MODEL)
            assert httpx.request(method, url).status_code not in (404, 405), path
