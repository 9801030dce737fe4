"""What an operator may do with servers, at the admin listener: look, take one out of use, put it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.routing import Route

from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.ui.admin import json_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from scalellm_trt.gateway.fleet.fleet import Fleet
    from scalellm_trt.gateway.fleet.member import Member


def routes(fleet: Callable[[], Fleet]) -> list[Route]:
    """Return the routes below `/admin/servers`; `fleet` gives the servers once the gateway runs."""

    async def list_all(request: Request) -> Response:
        return json_answer({"servers": [_json(member) for member in fleet().members]})

    async def drain(request: Request) -> Response:
        return _put(request, is_draining=True)

    async def resume(request: Request) -> Response:
        return _put(request, is_draining=False)

    def _put(request: Request, *, is_draining: bool) -> Response:
        name = request.path_params["name"]
        if not fleet().drain(name, is_draining=is_draining):
            known = ", ".join(member.name for member in fleet().members)
            return json_answer(ApiError(404, f"there is no server {name!r}; servers here: {known}").body(), 404)
        return json_answer({"servers": [_json(member) for member in fleet().members if member.name == name]})

    return [
        Route("/admin/servers", list_all),
        Route("/admin/servers/{name}/drain", drain, methods=["POST"]),
        Route("/admin/servers/{name}/resume", resume, methods=["POST"]),
    ]


def _json(member: Member) -> dict[str, object]:
    return {
        "name": member.name,
        "url": member.options.url,
        "state": member.condition,
        "running": member.num_running,
        "outstanding_tokens": member.num_outstanding_tokens,
        "models": None if member.models is None else sorted(member.models),
        "error": member.health.error or None,
    }
