"""What a target says of itself before it is measured: its model, and whether answers can have a chosen length."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Final

from scalellm_trt.bench.run import Target
from scalellm_trt.bench.targets import in_process, openai
from scalellm_trt.errors import ScaleLLMError
from scalellm_trt.runtime import settings as service_settings
from scalellm_trt.triton import served

if TYPE_CHECKING:
    from scalellm_trt.bench.question import Question
    from scalellm_trt.bench.targets.target import Way

TIMEOUT_S: Final = 10.0
_REFUSALS: Final = (400, 422)


def examine(way: Way, question: Question) -> tuple[Way, Target]:
    """Return the way with what could be found out, and the target as it is written down.

    A server that does not answer is no error here: the run will say what is wrong with it.
    """
    facts: dict[str, str] = {}
    if way.kind == "openai":
        way = _openai(way, question, facts)
    elif way.kind == "in-process":
        way = _in_process(way, facts)
    elif not way.model:
        way = dataclasses.replace(way, model=_served_model(way.url))
    facts["answer_length"] = "exact" if way.forces_length else "up to max_tokens"
    return way, Target(
        name=way.name,
        kind=way.kind,
        url=way.url,
        model=way.model,
        streams=way.streams,
        facts=facts,
        hardware=way.hardware,
    )


def _openai(way: Way, question: Question, facts: dict[str, str]) -> Way:
    facts["api"] = way.api
    if not way.model:
        models = _ask(way, "/models", None).get("data") or []
        names = [str(model.get("id")) for model in models if isinstance(model, dict)]
        way = dataclasses.replace(way, model=names[0] if names else "")
        if len(names) > 1:
            facts["model_choice"] = f"the first of {', '.join(names)}"
    if way.forces_length:
        short = dataclasses.replace(question, max_tokens=1)
        body = openai.body(dataclasses.replace(way, streams=False), short)
        status = _ask(way, openai.PATHS[way.api], body).get("status")
        plain = openai.body(dataclasses.replace(way, streams=False, forces_length=False), short)
        # Only if it is the wish for a length that is refused.
        if status in _REFUSALS and _ask(way, openai.PATHS[way.api], plain).get("status") == 200:
            way = dataclasses.replace(way, forces_length=False)
    return way


def _in_process(way: Way, facts: dict[str, str]) -> Way:
    assert way.engine is not None
    settings = service_settings.read(in_process.service_json(way.engine))
    facts["engine"] = f"{settings.engine}, KV {settings.kv_cache_precision}, {settings.num_threads or 'all'} threads"
    return dataclasses.replace(way, model=way.model or way.engine.resolve().name)


def _served_model(url: str) -> str:
    """Return the only text model of a server; empty where there is none, or no server."""
    with contextlib.suppress(ScaleLLMError):
        return served.text_model(url, None).name
    return ""


def _ask(way: Way, path: str, body: object | None) -> dict[str, Any]:
    """Return a JSON answer with its `status`; empty where there is none."""
    url = way.url.rstrip("/") + ("" if way.url.count("/") > 2 else "/v1") + path
    headers = {"Content-Type": "application/json"}
    if key := openai.api_key(way):
        headers["Authorization"] = f"Bearer {key}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=content, headers=headers)
    context = ssl.create_default_context(cafile=way.ca_file) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as response:
            answer = json.loads(response.read())
            return {**(answer if isinstance(answer, dict) else {}), "status": response.status}
    except urllib.error.HTTPError as error:
        return {"status": error.code}
    except (OSError, ValueError):
        return {}
