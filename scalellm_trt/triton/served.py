"""What a running tritonserver serves: its models and their contracts, asked over gRPC."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalellm_trt.errors import Problem, RecipeError, ServerNotReadyError
from scalellm_trt.triton.client_errors import translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tritonclient.grpc import InferenceServerClient

CALL_TIMEOUT_S = 5.0
POLL_S = 0.2
TEXT_INPUT = "text_input"
TEXT_OUTPUT = "text_output"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that a server has loaded.

    Attributes:
        inputs, outputs: tensor names.
        parameters: `parameters` of its config.pbtxt.
    """

    name: str
    inputs: frozenset[str]
    outputs: frozenset[str]
    parameters: Mapping[str, str]

    @property
    def is_text_model(self) -> bool:
        """Whether it takes and gives text."""
        return TEXT_INPUT in self.inputs and TEXT_OUTPUT in self.outputs


def wait_ready(url: str, timeout_s: float) -> None:
    """Return once the server at `url` has loaded its models.

    Raises:
        ServerNotReadyError: not within `timeout_s`; 0 asks once.
    """
    from tritonclient.utils import InferenceServerException

    deadline = time.monotonic() + timeout_s
    with _client(url) as client:
        while True:
            failure = ServerNotReadyError(f"{url}: the server is still loading its models")
            try:
                if client.is_server_ready(client_timeout=CALL_TIMEOUT_S):
                    return
            except InferenceServerException as error:
                failure = ServerNotReadyError(str(translate(error, url)))
            if time.monotonic() >= deadline:
                raise failure
            time.sleep(POLL_S)


def list_models(url: str) -> list[str]:
    """Return the names of the models that the server at `url` has ready.

    Raises:
        ServerNotReadyError: it does not answer.
    """
    from tritonclient.utils import InferenceServerException

    with _client(url) as client:
        try:
            index = client.get_model_repository_index(client_timeout=CALL_TIMEOUT_S)
        except InferenceServerException as error:
            raise translate(error, url) from error
        return sorted(model.name for model in index.models if model.state == "READY")


def inspect(url: str, name: str) -> ServedModel:
    """Ask the server at `url` for a model's contract.

    Raises:
        ServerNotReadyError: it does not answer.
        RecipeError: it has no such model; names those that it has.
    """
    from tritonclient.utils import InferenceServerException

    with _client(url) as client:
        try:
            config = client.get_model_config(name, client_timeout=CALL_TIMEOUT_S).config
        except InferenceServerException as error:
            models = [] if isinstance(translate(error, url), ServerNotReadyError) else list_models(url)
            raise translate(error, url, models=models) from error
    return ServedModel(
        name=name,
        inputs=frozenset(tensor.name for tensor in config.input),
        outputs=frozenset(tensor.name for tensor in config.output),
        parameters={key: parameter.string_value for key, parameter in config.parameters.items()},
    )


def text_model(url: str, name: str | None) -> ServedModel:
    """Return the text model called `name`, or the only one when no name is given.

    Raises:
        ServerNotReadyError: the server does not answer.
        RecipeError: there is no such model, it is no text model, or the choice is the user's to make.
    """
    if name is not None:
        model = inspect(url, name)
        if not model.is_text_model:
            message = f"{name} at {url} takes {', '.join(sorted(model.inputs))}: it is not a text model"
            raise RecipeError([Problem(key="--model", message=message)])
        return model
    candidates = [model for model in (inspect(url, found) for found in list_models(url)) if model.is_text_model]
    if len(candidates) != 1:
        names = ", ".join(model.name for model in candidates) or "none"
        message = f"{url} serves {'several text models' if candidates else 'no text model'}"
        raise RecipeError([Problem(key="--model", message=message, hint=f"Choose one of: {names}.")])
    return candidates[0]


@contextlib.contextmanager
def _client(url: str) -> Iterator[InferenceServerClient]:
    from tritonclient.grpc import InferenceServerClient

    client = InferenceServerClient(url)
    try:
        yield client
    finally:
        client.close()
