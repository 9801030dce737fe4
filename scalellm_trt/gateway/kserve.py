"""KServe v2 over HTTP: health and metadata of the server behind, for probes and clients that were written for Triton.

Asked of the server over gRPC each time, answered as Triton's own HTTP API does, errors too: `{"error": "…"}`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.routing import Route

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.front import json_response
from scalellm_trt.gateway.proto_json import as_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    Unary = Callable[[str, Any, float], Awaitable[Any]]
    """`Upstream.unary`: a method, a request, seconds → the answer; ApiError where there is none."""

TIMEOUT_S: Final = 5.0


def routes(unary: Unary) -> list[Route]:
    """Return the routes below `/v2`, without `/v2/health`."""
    found = [
        Route("/v2", partial(_server, unary)),
        Route("/v2/models/stats", partial(_model, unary, "ModelStatistics")),
        Route("/v2/repository/index", partial(_index, unary), methods=["POST"]),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found += [
            Route(path, partial(_model, unary, "ModelMetadata")),
            Route(f"{path}/config", partial(_model, unary, "ModelConfig")),
            Route(f"{path}/stats", partial(_model, unary, "ModelStatistics")),
            Route(f"{path}/ready", partial(_is_ready, unary)),
        ]
    return found


async def _server(unary: Unary, request: Request) -> Response:
    from tritonclient.grpc import service_pb2

    return await _answered(unary, "ServerMetadata", service_pb2.ServerMetadataRequest())


async def _index(unary: Unary, request: Request) -> Response:
    from tritonclient.grpc import service_pb2

    return await _answered(unary, "RepositoryIndex", service_pb2.RepositoryIndexRequest())


async def _model(unary: Unary, method: str, request: Request) -> Response:
    from tritonclient.grpc import service_pb2

    names = {"name": request.path_params.get("model", ""), "version": request.path_params.get("version", "")}
    return await _answered(unary, method, getattr(service_pb2, f"{method}Request")(**names))


async def _is_ready(unary: Unary, request: Request) -> Response:
    from tritonclient.grpc import service_pb2

    names = {"name": request.path_params["model"], "version": request.path_params.get("version", "")}
    try:
        answer = await unary("ModelReady", service_pb2.ModelReadyRequest(**names), TIMEOUT_S)
        is_ready = bool(answer.ready)
    except ApiError:
        is_ready = False
    return Response() if is_ready else _failure(400, "Model version not ready")


async def _answered(unary: Unary, method: str, message: object) -> Response:
    try:
        answer = await unary(method, message, TIMEOUT_S)
    except ApiError as error:
        if error.code == "model_not_loaded":
            return _failure(404, error.message[error.message.find("Request for ") :])
        return _failure(error.status, error.message)
    return json_response(_body(method, answer))


def _body(method: str, answer: Any) -> object:  # noqa: ANN401  protobuf's generated classes have no types
    """Return what Triton's HTTP API answers where gRPC answers `answer`."""
    if method == "ModelConfig":
        return as_json(answer.config)
    if method == "RepositoryIndex":
        return [{key: value for key, value in as_json(model).items() if value} for model in answer.models]
    return as_json(answer)


def _failure(status: int, message: str) -> Response:
    return json_response({"error": message}, status)
