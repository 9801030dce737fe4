"""The gateway as an ASGI application: routes in, jobs at the engine, answers out."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import (
    content_type,
    jobs,
    kserve,
    openapi,
    reload_admin,
    request_log,
    schemas,
    whole_answer,
)
from scalellm_trt.gateway.admission import Admission
from scalellm_trt.gateway.api_keys import KeyRing
from scalellm_trt.gateway.direct_write import writer_of
from scalellm_trt.gateway.disconnect import ClientGoneError, until_gone
from scalellm_trt.gateway.doorway import Doorway
from scalellm_trt.gateway.errors import ApiError
from scalellm_trt.gateway.event_stream import EventStream
from scalellm_trt.gateway.fleet import admin as fleet_admin
from scalellm_trt.gateway.fleet.fleet import Fleet
from scalellm_trt.gateway.front import RECORD, Front, json_response
from scalellm_trt.gateway.hangup import SETTLE_S, Hangup
from scalellm_trt.gateway.metrics import Metrics
from scalellm_trt.gateway.replies import ChatDialect, CompletionDialect, PredictDialect
from scalellm_trt.gateway.running import Running
from scalellm_trt.gateway.send_now import try_now
from scalellm_trt.gateway.several import Several
from scalellm_trt.gateway.tenants.tenancy import Tenancy
from scalellm_trt.gateway.ui.admin import AdminDoor, admin_app, routes_of_page
from scalellm_trt.gateway.ui.observer import Observer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping

    from starlette.types import ASGIApp, Send

    from scalellm_trt.gateway.fleet.server_load import SharedLoads
    from scalellm_trt.gateway.jobs import Job
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.reloading import Reloads
    from scalellm_trt.gateway.replies import Dialect, StreamDialect
    from scalellm_trt.gateway.request_log import RequestRecord
    from scalellm_trt.gateway.served import GatewayModel
    from scalellm_trt.gateway.tracing import Tracing
    from scalellm_trt.gateway.ui.state import State

Fields = TypeVar("Fields", bound=BaseModel)
Result = TypeVar("Result")
WATCH_EVERY_S = 1.0
INLINE_BODY_BYTES: Final = 2048
"""Template and tokenizer take milliseconds for a long prompt, in which every stream would stand still; for a short one
a thread, which waits for the interpreter's lock, costs more than they do."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Gateway:
    """What the routes share."""

    def __init__(
        self,
        models: Mapping[str, GatewayModel],
        options: GatewayOptions,
        tenancy: Tenancy | None = None,
        worker: int = 0,
        reloads: Reloads | None = None,
        loads: SharedLoads | None = None,
    ) -> None:
        """Offer `models`; connections are made when the application starts."""
        self.models, self.options, self.metrics = models, options, Metrics()
        self.admission = Admission(options.max_streams, options.max_queue_size, options.queue_timeout_s, self.metrics)
        self.doorway = Doorway()
        self.keys = KeyRing(options.api_key, options.key_file)
        self._tenancy, self._worker, self.reloads = tenancy or Tenancy(options), worker, reloads
        self.reception = self._tenancy.opened(worker, self.admission.queue, self.metrics)
        self.observer = Observer(models, options, self.metrics, self.admission)
        self.tracing = None if options.otlp_endpoint is None else _tracing(options.otlp_endpoint)
        self._load_of = None if loads is None else partial(loads.of, worker=worker)
        self._fleet: Fleet | None = None

    @property
    def fleet(self) -> Fleet:
        """The servers; only while the application runs."""
        assert self._fleet is not None
        return self._fleet

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncGenerator[None, None]:
        """Hold the connections while the application runs."""
        self._fleet = Fleet(self.options, self.metrics, self._load_of)
        self.look_at_reloads()  # a worker that was started again has missed them
        self._hear_hangup()
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            if self.tracing is not None:
                await asyncio.to_thread(self.tracing.close)
            await self._fleet.close()

    def look_at_reloads(self) -> None:
        """Take what was read again, by this worker or another one; to be called once a second."""
        news = None if self.reloads is None else self.reloads.news()
        if news is None:
            return
        try:
            self.keys.use(news.options.key_file)
        except RecipeError as error:
            # It was good a second ago.
            request_log.LOGGER.error("the keys of before stay", extra={"fields": {"error": error.message}})
        self.options = news.options
        self._tenancy.take(news.options.tenants, news.rows)
        self.reception = self._tenancy.opened(self._worker, self.admission.queue, self.metrics)
        self.observer.use(news.options)
        self.fleet.use(news.options)

    def _hear_hangup(self) -> None:
        """Let SIGHUP read the configuration again, where this process is alone: else it is the parent's to hear."""
        if self.reloads is None or self.reloads.is_shared:
            return
        loop, hangup = asyncio.get_running_loop(), Hangup()

        def settle() -> None:
            if hangup.is_end:
                os.kill(os.getpid(), signal.SIGTERM)
            elif self.reloads is not None:
                reload_admin.reload(self.reloads)
                self.look_at_reloads()

        loop.add_signal_handler(signal.SIGHUP, loop.call_later, SETTLE_S, settle)

    def _note_present(self) -> None:
        self.metrics.connections.set(self.fleet.num_connections())
        self.metrics.tasks.set(len(asyncio.all_tasks()))

    async def _watch(self) -> None:
        """Keep what other workers and the operator's page say of this one current."""
        while True:
            self._note_present()
            self.look_at_reloads()
            self.fleet.look_at_draining()
            self.observer.tick(self.fleet.num_connections())
            await asyncio.sleep(WATCH_EVERY_S)

    async def ask(self, method: str, request: object, timeout_s: float) -> Any:  # noqa: ANN401  protobuf has no types
        """Ask a server; see `Fleet.unary`."""
        return await self.fleet.unary(method, request, timeout_s)

    async def chat(self, request: Request, send: Send) -> None:
        """Answer `/v1/chat/completions`."""
        with self.reception.visit(request.scope[RECORD]):
            job = await self._job(request, schemas.ChatRequest, jobs.of_chat)
            await self._answer(request, send, job, ChatDialect(job))

    async def completion(self, request: Request, send: Send) -> None:
        """Answer `/v1/completions`."""
        with self.reception.visit(request.scope[RECORD]):
            job = await self._job(request, schemas.CompletionRequest, jobs.of_completion)
            await self._answer(request, send, job, CompletionDialect(job))

    async def predict(self, request: Request, send: Send) -> None:
        """Answer `/predict`."""
        with self.reception.visit(request.scope[RECORD]):
            job = await self._job(request, schemas.PredictRequest, jobs.of_predict)
            await self._answer_whole(request, send, job, PredictDialect())

    async def list_models(self, request: Request) -> Response:
        """Answer `/v1/models`: those that the tenant may ask for."""
        tenant = self.reception.tenant(request.scope[RECORD])
        models = [model for model in self.models.values() if tenant is None or tenant.may_use(model.name)]
        return json_response({"object": "list", "data": [_model_json(model) for model in models]})

    async def one_model(self, request: Request) -> Response:
        """Answer `/v1/models/{model}`."""
        model = jobs.find_model(self.models, request.path_params["model"])
        self.reception.check_model(request.scope[RECORD], model.name)
        return json_response(_model_json(model))

    async def live(self, request: Request) -> Response:
        """Answer `/health/live`."""
        return Response()

    async def ready(self, request: Request) -> Response:
        """Answer `/health/ready`: whether a server is."""
        return Response(status_code=200 if await self.fleet.is_ready() else 503)

    async def render_metrics(self, request: Request) -> Response:
        """Answer `/metrics`."""
        await self.fleet.is_ready()
        self._note_present()
        return Response(self.metrics.render(), headers={"content-type": METRICS_TYPE})

    async def state(self) -> State:
        """Return what the operator's page shows."""
        await self.fleet.is_ready()
        return self.observer.state(self.fleet.members)

    async def describe(self, request: Request) -> Response:
        """Answer `/openapi.json`."""
        return json_response(openapi.description(*self.models))

    async def _job(
        self,
        request: Request,
        schema: type[Fields],
        understand: Callable[[Fields, GatewayModel, GatewayOptions, str], Job],
    ) -> Job:
        record: RequestRecord = request.scope[RECORD]
        body = await self._read_body(request)
        await self.doorway.enter()
        fields = schemas.parse(body, schema)
        model = jobs.find_model(self.models, getattr(fields, "model", None))
        record.model = model.name
        self.reception.check_model(record, model.name)
        for name in ("user", "safety_identifier", "metadata"):
            setattr(record, name, getattr(fields, name, None))
        if len(body) <= INLINE_BODY_BYTES:
            job = understand(fields, model, self.options, record.request_id)
        else:
            job = await asyncio.to_thread(understand, fields, model, self.options, record.request_id)
        record.stream = job.stream
        if record.visit is not None:
            record.visit.reserve(job.most_tokens())
        return job

    async def _read_body(self, request: Request) -> bytes:
        """Return the request's body, as `_read_body`; a client that drips it gets an answer too."""
        timeout_s = self.options.body_timeout_s
        body = bytearray()
        try:
            # Most bodies are there with their headers: those need neither a task nor a timer.
            rest = try_now(_read_body(request, self.options.max_body_bytes, body))
            if rest is not None:
                await asyncio.wait_for(rest, timeout_s)
            return bytes(body)
        except asyncio.TimeoutError as error:
            raise ApiError(408, f"the body did not come within {timeout_s:g} s", code="body_timeout") from error

    async def _answer(self, request: Request, send: Send, job: Job, dialect: StreamDialect) -> None:
        if job.stream:
            running = Running(job, self.metrics, request.scope[RECORD])
            events = EventStream(
                send, running, dialect, include_usage=job.include_usage, write=writer_of(request.scope)
            )
            await _serve(request, running, self._admitted(job, partial(events.run, self.fleet), request.scope[RECORD]))
        else:
            await self._answer_whole(request, send, job, dialect)

    async def _answer_whole(self, request: Request, send: Send, job: Job, dialect: Dialect) -> None:
        record: RequestRecord = request.scope[RECORD]
        running: Running | Several
        if job.siblings:
            running = Several(job, self.metrics, record)
            work = running.whole(self.fleet, partial(self._admitted, record=record))
        else:
            running = Running(job, self.metrics, record)
            work = self._admitted(job, partial(whole_answer.take, running, self.fleet), record)
        answers = await _serve(request, running, work)
        if record.visit is not None:
            record.visit.note(running.usage)
        response = json_response(dialect.whole(answers, running.usage))
        await response(request.scope, request.receive, send)

    def _admitted(
        self, job: Job, work: Callable[[], Awaitable[Result]], record: RequestRecord
    ) -> Coroutine[Any, Any, Result]:
        """Return the work of a job, done once it is the turn of its request's tenant."""
        turn = None if record.visit is None else record.visit.turn(job.most_tokens())
        return self.admission.admitted(job.model.name, work, turn)


def make_app(
    models: Mapping[str, GatewayModel],
    options: GatewayOptions,
    tenancy: Tenancy | None = None,
    worker: int = 0,
    admin_port: int | None = None,
    reloads: Reloads | None = None,
    loads: SharedLoads | None = None,
) -> ASGIApp:
    """Return the application that offers `models`.

    Args:
        models: by name.
        options: what is let in.
        tenancy: what this process has in common with other workers; None where it is alone.
        worker: its number among them.
        admin_port: connections to it see the operator's page; None where there is none.
        reloads: reads the configuration again; None where there is none.
        loads: what all workers do at each server; None where this one is alone.

    Raises:
        RecipeError: the key file or the ledger cannot be used.
    """
    gateway = Gateway(models, options, tenancy, worker, reloads, loads)
    generating = {
        "/v1/chat/completions": gateway.chat,
        "/v1/completions": gateway.completion,
        "/predict": gateway.predict,
    }
    routes = [
        *(Route(path, _never, methods=["POST"]) for path in generating),  # for what is said of other methods
        Route("/v1/models", gateway.list_models),
        Route("/v1/models/{model:path}", gateway.one_model),
        *(Route(path, gateway.live) for path in ("/health/live", "/v2/health/live")),
        *(Route(path, gateway.ready) for path in ("/health", "/health/ready", "/v2/health/ready")),
        *kserve.routes(gateway.ask),
        Route("/metrics", gateway.render_metrics),
        Route("/openapi.json", gateway.describe),
    ]
    app = Starlette(routes=routes, lifespan=gateway.lifespan, exception_handlers={HTTPException: _http_error})
    app.add_middleware(Front, metrics=gateway.metrics, keys=gateway.keys, tracing=gateway.tracing, direct=generating)
    if admin_port is None:
        return app
    admin_routes = [*routes_of_page(gateway.state), *fleet_admin.routes(lambda: gateway.fleet)]
    if reloads is not None:
        admin_routes.append(reload_admin.route(reloads, gateway.look_at_reloads))
    return AdminDoor(app, admin_app(admin_routes), admin_port, options, gateway.keys)


def _tracing(endpoint: str) -> Tracing:
    from scalellm_trt.gateway import tracing

    return tracing.to_collector(endpoint)


async def _serve(request: Request, running: Running | Several, work: Coroutine[Any, Any, Result]) -> Result:
    """Do the work of a job while its client is there."""
    try:
        return await until_gone(request.receive, work)
    except ClientGoneError:
        running.note_cancelled()
        raise


async def _never(request: Request) -> Response:
    """Stand for a handler to which `Front` goes directly."""
    raise AssertionError(request.url.path)


async def _http_error(request: Request, error: Exception) -> Response:
    """Say in OpenAI's shape that there is no such route or method."""
    assert isinstance(error, HTTPException)
    allow = error.headers or {}
    raise ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}", headers=allow)


async def _read_body(request: Request, max_bytes: int, body: bytearray) -> None:
    """Add the request's body to `body`.

    Raises:
        ApiError: it says that it is no JSON, or is longer than `max_bytes`; no more than that is read.
        ClientGoneError: the client left in the middle.
    """
    content_type.check(request.headers)
    try:
        async for part in request.stream():
            body += part
            if len(body) > max_bytes:
                raise ApiError(413, f"the body is longer than {max_bytes} bytes", code="body_too_large")
    except ClientDisconnect as error:
        raise ClientGoneError from error


def _model_json(model: GatewayModel) -> dict[str, object]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "scalellm-trt"}
