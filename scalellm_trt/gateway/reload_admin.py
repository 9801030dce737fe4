"""`POST /admin/reload`, or SIGHUP: an operator lets gateway.yaml be read again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.routing import Route

from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.ui.admin import json_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from scalellm_trt.gateway.reloading import Reloads


def route(reloads: Reloads, look: Callable[[], None]) -> Route:
    """Return the route; `look` lets this worker use at once what all others use within a second."""

    async def reload(request: Request) -> Response:
        try:
            outcome = await asyncio.to_thread(reloads.publish)
        except RecipeError as error:
            _note_refused(error)
            return json_answer(ApiError(400, error.message, code="wrong_configuration").body(), 400)
        look()
        return json_answer({"changed": outcome.changed, "needs_restart": outcome.restart})

    return Route("/admin/reload", reload, methods=["POST"])


def reload(reloads: Reloads) -> None:
    """Read the configuration again after SIGHUP; the log says what came of it."""
    try:
        reloads.publish()
    except RecipeError as error:
        _note_refused(error)


def _note_refused(error: RecipeError) -> None:
    """Say in the log that a configuration is wrong."""
    fields = {"error": error.message}
    request_log.LOGGER.error("the configuration of before stays: the new one is wrong", extra={"fields": fields})
