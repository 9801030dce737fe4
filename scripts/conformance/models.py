"""`/v1/models`."""

from __future__ import annotations

import openai

from scripts.conformance.registry import check
from scripts.conformance.target import CheckError, Target, equal, need


@check("models", "the list holds model objects")
def _list(target: Target) -> None:
    models = target.client.models.list().data
    need(target.model in [model.id for model in models], [model.id for model in models])
    need(all(model.object == "model" and isinstance(model.created, int) and model.owned_by for model in models), models)


@check("models", "one model can be retrieved")
def _one(target: Target) -> None:
    equal(target.client.models.retrieve(target.model).id, target.model)


@check("models", "an unknown model is 404")
def _unknown(target: Target) -> None:
    try:
        target.client.models.retrieve("no-such-model")
    except openai.NotFoundError:
        return
    raise CheckError("was found")


@check("models", "a chat with an unknown model is 404, code model_not_found")
def _chat_with_unknown(target: Target) -> None:
    try:
        target.chat(model="no-such-model")
    except openai.NotFoundError as error:
        equal(error.code, "model_not_found")
        return
    raise CheckError("was answered")
