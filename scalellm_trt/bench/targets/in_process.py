"""The engine without a server: a built service's own engine in the client process, asked through its Python seam."""

from __future__ import annotations

import asyncio
import sys
import time
from array import array
from typing import TYPE_CHECKING, Any, Final

from scalellm_trt.bench.targets.raw import Answer, Piece, Raw
from scalellm_trt.errors import ArtefactError, Problem, UnsupportedError
from scalellm_trt.runtime import settings as service_settings
from scalellm_trt.runtime.engine_api import GenerateRequest, InvalidRequestError, SamplingParams, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from scalellm_trt.bench.question import Question
    from scalellm_trt.bench.targets.raw import Reader
    from scalellm_trt.bench.targets.target import Way
    from scalellm_trt.runtime.engine_api import Chunk, GenerationEngine
    from scalellm_trt.runtime.settings import ServiceSettings

VERSIONS: Final = ("", "1")


def service_json(directory: Path) -> Path:
    """Return where a service's settings are: its directory in a repository, or the version below it.

    Raises:
        ArtefactError: there are none.
    """
    for version in VERSIONS:
        path = directory / version / service_settings.FILE_NAME
        if path.is_file():
            return path
    message = f"{directory}: no {service_settings.FILE_NAME} here or in 1/"
    raise ArtefactError(message, hint="Name the directory of a built service, such as engine:triton_repo/NAME.")


def load(directory: Path) -> tuple[GenerationEngine, ServiceSettings]:
    """Load a service's engine.

    Raises:
        ArtefactError: there is no service.
        UnsupportedError: its engine is not one for this process.
    """
    path = service_json(directory)
    settings = service_settings.read(path)
    if settings.engine != "openvino":
        message = f"{directory}: the engine {settings.engine} is measured through its server"
        raise UnsupportedError([Problem(key="--target", message=message, hint="Name it as grpc://HOST:PORT/MODEL.")])
    from scalellm_trt.runtime import engine_openvino

    engine = engine_openvino.create(
        settings,
        path.parent / settings.engine_directory,
        on_step=lambda: None,
        log=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return engine, settings


class EngineAsker:
    """Asks an engine in this process; its thread notes the times, the event loop only waits."""

    def __init__(self, way: Way, engine: GenerationEngine, settings: ServiceSettings) -> None:
        """Take the engine."""
        self._way, self._engine = way, engine
        self._stop_ids = frozenset(settings.eos_token_ids)
        self._live: dict[asyncio.Future[None], tuple[Any, Raw]] = {}

    async def prepare(self, num_streams: int) -> None:
        """See `Asker`: there is nothing to open."""

    async def ask(self, question: Question, request_id: str, timeout_s: float) -> Raw:
        """See `Asker`."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        raw = Raw(sent_s=time.monotonic())

        def take(chunk: Chunk) -> bool:
            now_s = time.monotonic()
            if chunk.token_ids:
                raw.pieces.append((now_s, array("i", chunk.token_ids).tobytes()))
            if chunk.finish_reason is not None:
                raw.end_s, raw.finish_reason = now_s, chunk.finish_reason
                if chunk.finish_reason == "error":
                    raw.fail("server_error", chunk.error or "the engine failed")
                loop.call_soon_threadsafe(_set, done)
            return True

        try:
            generation = self._engine.submit(self._request(question), take)
        except InvalidRequestError as error:
            raw.fail("bad_request", str(error))
        except UnavailableError as error:
            raw.fail("rate_limited", str(error))
        else:
            self._live[done] = (generation, raw)
            try:
                await asyncio.wait_for(done, timeout_s)
            except asyncio.TimeoutError:
                raw.fail("timeout", f"no whole answer within {timeout_s:g} s")
                generation.cancel()
            finally:
                del self._live[done]
        raw.end_s = raw.end_s or time.monotonic()
        return raw

    def give_up(self) -> None:
        """See `Asker`."""
        for done, (generation, raw) in list(self._live.items()):
            raw.was_cancelled = True
            generation.cancel()
            _set(done)

    async def close(self) -> None:
        """See `Asker`."""
        self._engine.close()

    def _request(self, question: Question) -> GenerateRequest:
        sampling = SamplingParams(
            max_tokens=question.max_tokens,
            min_tokens=question.max_tokens if self._way.forces_length else 0,
            temperature=self._way.temperature or None,
            stop_token_ids=self._stop_ids,
        )
        return GenerateRequest(input_ids=question.ids, sampling=sampling)


def reader(decode: Callable[[Sequence[int]], str]) -> Reader:
    """Return who reads answers; `decode` makes a text of tokens."""

    def read(raw: Raw) -> Answer:
        answer = Answer(finish_reason=raw.finish_reason)
        if raw.error is not None:
            answer.fail(raw.error, raw.error_text or "")
        ids: list[int] = []
        for at_s, content in raw.pieces:
            new = array("i", content)
            ids += new
            answer.pieces.append(Piece(at_s=at_s, text="", num_tokens=len(new)))
        answer.server_osl = len(ids)
        answer.whole_text = decode(ids)
        return answer

    return read


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
