"""The gateway's OpenAPI description, made from the schemas that check its requests."""

from __future__ import annotations

import json
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from scalellm_trt.gateway import refused, reply_schemas, schemas

if TYPE_CHECKING:
    from pydantic import BaseModel

_REF: Final = "#/components/schemas/{model}"
_REQUESTS: Final = (schemas.ChatRequest, schemas.CompletionRequest, schemas.PredictRequest)
_REPLIES: Final = (
    reply_schemas.ChatCompletion,
    reply_schemas.Completion,
    reply_schemas.Prediction,
    reply_schemas.Model,
    reply_schemas.ModelList,
    reply_schemas.Error,
)
_GENERATING: Final = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
# Each event's data is a chunk, and at last `[DONE]`.
_EVENT: Final = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_PROBES: Final = ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")


@cache
def description(*models: str) -> dict[str, Any]:
    """Return the description, an object of JSON; `models` are those that are offered, if they are known."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "scalellm-trt gateway",
            "version": "1",
            "description": "OpenAI's API in front of tritonserver. What is not described is refused by name.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _components(models),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where keys are asked for."}
            },
        },
    }


def text() -> str:
    """Return the description as it is kept in docs/reference."""
    return json.dumps(description(), indent=1, ensure_ascii=False) + "\n"


def _paths() -> dict[str, Any]:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": {
            "post": _generating("chat", "Answer a conversation", schemas.ChatRequest, reply_schemas.ChatCompletion)
        },
        "/v1/completions": {
            "post": _generating("complete", "Continue a text", schemas.CompletionRequest, reply_schemas.Completion)
        },
        "/predict": {
            "post": _generating(
                "predict", "Answer a text", schemas.PredictRequest, reply_schemas.Prediction, streams=False
            )
        },
        "/v1/models": {"get": _asking("listModels", "List the models", {200: reply_schemas.ModelList}, (401,))},
        "/v1/models/{model}": {
            "get": {
                **_asking("oneModel", "Describe a model", {200: reply_schemas.Model}, (401, 403, 404)),
                "parameters": [name],
            }
        },
        **{path: {"get": _probe(path)} for path in _PROBES},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "What Prometheus reads",
                "responses": {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            }
        },
    }


def _generating(
    operation: str, summary: str, body: type[BaseModel], reply: type[BaseModel], *, streams: bool = True
) -> dict[str, Any]:
    """Return an operation that makes tokens."""
    described = _asking(operation, summary, {200: reply}, _GENERATING)
    described["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    if streams:
        described["responses"]["200"]["content"]["text/event-stream"] = {"schema": _EVENT}
    return described


def _asking(
    operation: str, summary: str, replies: dict[int, type[BaseModel]], errors: tuple[int, ...]
) -> dict[str, Any]:
    shapes: dict[int, type[BaseModel]] = {**replies, **dict.fromkeys(errors, reply_schemas.Error)}
    return {
        "operationId": operation,
        "summary": summary,
        "security": [{"key": []}, {}],
        "responses": {
            str(status): {
                "description": HTTPStatus(status).phrase,
                "content": {"application/json": {"schema": _ref(shape)}},
            }
            for status, shape in shapes.items()
        },
    }


def _probe(path: str) -> dict[str, Any]:
    about = "Whether this process lives" if path.endswith("live") else "Whether the model's server is ready"
    statuses = (200,) if path.endswith("live") else (200, 503)
    return {
        "operationId": path.strip("/").replace("/", "-"),
        "summary": about,
        "responses": {str(status): {"description": HTTPStatus(status).phrase} for status in statuses},
    }


def _components(models: tuple[str, ...]) -> dict[str, Any]:
    wanted = [(each, "validation") for each in (*_REQUESTS, *_REPLIES)]
    _, found = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]  # a list of pairs is invariant
    components: dict[str, Any] = found["$defs"]
    for name in ("ChatRequest", "CompletionRequest") if models else ():
        components[name]["properties"]["model"]["enum"] = [*models]
    tables = {"ChatRequest": refused.IN_REQUESTS, "CompletionRequest": refused.IN_REQUESTS}
    tables |= {"ChatMessage": refused.IN_MESSAGES, "StreamOptions": refused.IN_STREAM_OPTIONS}
    for name, table in tables.items():
        properties = components[name]["properties"]
        for field, refusal in table.items():
            if field not in properties and refusal.neutral:
                about = f"Not supported: {refusal.reason}. These values ask for nothing."
                properties[field] = {"enum": _distinct(*refusal.neutral, None), "description": about}
    return components


def _distinct(*values: object) -> list[object]:
    """Return the values that JSON can tell apart: 0 and 0.0 are one."""
    return list({json.dumps(float(value) if type(value) is int else value): value for value in values}.values())


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
