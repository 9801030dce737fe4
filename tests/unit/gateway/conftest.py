from __future__ import annotations

from typing import TYPE_CHECKING

import openai
import pytest

from tests.fakes.gateways import END_ID, MODEL, RunningGateway, running, write_repository
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def one_server() -> Iterator[TokenServer]:
    server = TokenServer(MODEL, END_ID)
    yield server
    server.close()


@pytest.fixture
def server(one_server: TokenServer) -> Iterator[TokenServer]:
    """A server that behaves well until the test says otherwise, and afterwards again."""
    one_server.reset()
    yield one_server
    one_server.reset()


@pytest.fixture(scope="package")
def gateway(one_server: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    directory = tmp_path_factory.mktemp("gateway")
    with running(write_repository(directory / "repository"), one_server.url, directory / "log") as gateway:
        yield gateway


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client
