"""The model that Triton's python backend loads: text or ids in, text or ids out; the engine here or in another model.

Files beside it: `service.json` (see settings.py) and the engine's directory.
"""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils

from . import request as text_request
from . import settings
from .answer import Answer
from .engine_api import InvalidRequestError, UnavailableError
from .inputs import Inputs
from .live_answers import LiveAnswers
from .tokenizer import PromptTokenizer
from .triton_client import TritonClient, send_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .engine_api import GenerationEngine
    from .settings import ServiceSettings

_ENGINE_MODULES = {"openvino": "engine_openvino", "tensorrt_llm": "engine_tensorrt_llm", "llmapi": "engine_llmapi"}


class TritonPythonModel:
    """One service. Triton calls `initialize`, then `execute` for each request, then `finalize`, from one thread."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load tokenizer and engine of the version that Triton names in `args`."""
        directory = Path(args["model_repository"]) / args["model_version"]
        self._settings: ServiceSettings = settings.read(directory / settings.FILE_NAME)
        engine_directory = directory / self._settings.engine_directory
        self._tokenizer = PromptTokenizer(engine_directory, self._settings)
        self._answers = LiveAnswers(self._settings)
        # Only the engine in use is imported: each needs a library that the others' images lack.
        module = importlib.import_module(f".{_ENGINE_MODULES[self._settings.engine]}", __package__)
        self._unsupported: Mapping[str, str] = module.UNSUPPORTED_INPUTS
        self._engine: GenerationEngine = module.create(
            self._settings, engine_directory, on_step=self._answers.on_step, log=pb_utils.Logger.log_warn
        )

    def execute(self, requests: Sequence[Any]) -> None:
        """Take requests; their responses are sent by the engine's thread."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._take(request, sender)
            except InvalidRequestError as error:
                send_error(sender, str(error), pb_utils.TritonError.INVALID_ARG)
            except UnavailableError as error:
                send_error(sender, str(error), pb_utils.TritonError.UNAVAILABLE)
            except Exception:
                pb_utils.Logger.log_error(traceback.format_exc())
                send_error(sender, "the request could not be read; see the server's log", pb_utils.TritonError.INTERNAL)

    def finalize(self) -> None:
        """Stop the engine; what is still live gets an error."""
        self._engine.close()

    def _take(self, request: Any, sender: Any) -> None:  # noqa: ANN401  types of Triton's stub
        """Hand one request to the engine."""
        inputs = Inputs({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
        parsed = text_request.parse(inputs, self._tokenizer, self._settings, self._unsupported)
        client = TritonClient(sender, parsed)
        answer = Answer(parsed, client, self._tokenizer.token_bytes, self._answers.spacing_s)
        self._answers.add(answer, self._engine.submit(parsed.generate, answer.take))
