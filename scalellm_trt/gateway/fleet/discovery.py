"""Which servers there are, where that changes at run time: from a watched file, from DNS, or from a registry.

What cannot be read changes nothing: a name server that is away must not take all servers with it. Nor does an empty
list.
"""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.request
from typing import TYPE_CHECKING, Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.fleet.config_schema import ServerName, ServerSection, to_servers
from scalellm_trt.gateway.options import ServerOptions
from scalellm_trt.recipe.file_text import read_text
from scalellm_trt.recipe.tree import plain
from scalellm_trt.recipe.yaml_reader import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from scalellm_trt.gateway.options import DiscoveryOptions

TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 2**20
_FILE_HINT: Final = "A list of servers is `servers:` and below it NAME: {url: HOST:PORT}, as in gateway.yaml."


class _Listed(BaseModel):
    """What a watched file holds, in YAML, and what a registry answers, in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    servers: dict[ServerName, ServerSection]


class Source(Protocol):
    """Where servers are looked up."""

    async def look(self) -> Sequence[ServerOptions]:
        """Return the servers that there are now.

        Raises:
            DiscoveryError: it cannot be told.
        """
        ...


class DiscoveryError(Exception):
    """Why the servers cannot be told."""


def source(options: DiscoveryOptions) -> Source | None:
    """Return the source that is asked for, if one is."""
    if options.file is not None:
        return FileSource(options.file)
    if options.dns is not None:
        return DnsSource(options.dns)
    return None if options.registry is None else RegistrySource(options.registry)


class FileSource:
    """A YAML file with the section `servers` of gateway.yaml; replace it as a whole (`mv`)."""

    def __init__(self, path: Path) -> None:
        """Read `path` at each look."""
        self._path = path

    async def look(self) -> Sequence[ServerOptions]:
        """See `Source`."""
        return await asyncio.to_thread(self.read)

    def read(self) -> Sequence[ServerOptions]:
        """Return what the file says.

        Raises:
            DiscoveryError: it is missing or damaged; says where.
        """
        try:
            tree, problems = read(read_text(self._path), self._path, _FILE_HINT)
        except RecipeError as error:
            raise DiscoveryError(error.message) from error
        if problems:
            raise DiscoveryError(str(problems[0]))
        return _servers(plain(tree), str(self._path))


class DnsSource:
    """The addresses of a host name, such as that of a headless service of Kubernetes; a server for each."""

    def __init__(self, name: str) -> None:
        """Look up `name`, `HOST:PORT`, at each look."""
        self._host, _, self._port = name.rpartition(":")

    async def look(self) -> Sequence[ServerOptions]:
        """See `Source`."""
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(
                loop.getaddrinfo(self._host.strip("[]"), int(self._port), type=socket.SOCK_STREAM), TIMEOUT_S
            )
        except (OSError, asyncio.TimeoutError) as error:
            message = f"{self._host} is not found: {error or 'no answer in time'}"
            raise DiscoveryError(message) from error
        hosts = sorted({str(address[0]) for *_, address in found})
        urls = [f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}" for host in hosts]
        return [ServerOptions(name=url, url=url) for url in urls]


class RegistrySource:
    """An HTTP address that answers `{"servers": {NAME: {"url": "HOST:PORT"}}}`."""

    def __init__(self, url: str) -> None:
        """Ask `url` at each look."""
        self._url = url

    async def look(self) -> Sequence[ServerOptions]:
        """See `Source`."""
        try:
            return _servers(await asyncio.to_thread(self._get), self._url)
        except (OSError, ValueError) as error:
            message = f"{self._url}: {error}"
            raise DiscoveryError(message) from error

    def _get(self) -> object:
        with urllib.request.urlopen(self._url, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read(MAX_ANSWER_BYTES))


async def follow(
    looked_up: Source,
    interval_s: float,
    known: Sequence[ServerOptions],
    on_change: Callable[[Sequence[ServerOptions]], None],
) -> None:
    """Look again and again, and tell `on_change` of every new list; never returns.

    Args:
        looked_up: where.
        interval_s: how often.
        known: the list that is in use.
        on_change: takes the new one.
    """
    complaint = ""
    while True:
        try:
            servers = await looked_up.look()
            problem = "" if servers else "the list of servers is empty"
        except DiscoveryError as error:
            servers, problem = (), str(error)
        if problem and problem != complaint:
            request_log.LOGGER.warning("the servers of before stay", extra={"fields": {"error": problem}})
        complaint = problem
        if servers and set(servers) != set(known):
            known = servers
            names = [server.name for server in servers]
            request_log.LOGGER.info("other servers", extra={"fields": {"servers": names}})
            on_change(servers)
        await asyncio.sleep(interval_s)


def _servers(value: object, place: str) -> Sequence[ServerOptions]:
    try:
        return to_servers(_Listed.model_validate(value).servers)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = f"{place}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}"
        raise DiscoveryError(message) from error
