"""gateway.yaml and what the command line says on top of it in, one checked `Setup` out.

A relative path counts from the place in which it is written: the file's directory, or the working directory for an
option of the command line.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.gateway.config_schema import GatewayConfig
from scalellm_trt.gateway.fleet import config_schema as fleet_schema
from scalellm_trt.gateway.listening import is_loopback
from scalellm_trt.gateway.options import DiscoveryOptions, GatewayOptions, ListenTls, ServerOptions, ServerTls
from scalellm_trt.gateway.tenants import config_schema
from scalellm_trt.recipe.file_text import read_text
from scalellm_trt.recipe.messages import Document, limited, schema_problem
from scalellm_trt.recipe.tree import Leaf, Place, Section, dotted, merge, plain, walk
from scalellm_trt.recipe.yaml_reader import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.gateway.config_schema import LogLevel
    from scalellm_trt.recipe.tree import KeyPath, Node, Scalar

DOCUMENT: Final = Document(
    noun="a gateway's configuration",
    model=GatewayConfig,
)
HINT: Final = (
    "A configuration is `key: value` lines: listen, server, limits, …; docs/reference/gateway.md has them all."
)
COMMAND_LINE: Final = Path("command line")
PATH_KEYS: Final[frozenset[KeyPath]] = frozenset(
    {
        ("repository",),
        ("keys", "file"),
        ("listen", "tls_certificate"),
        ("listen", "tls_key"),
        ("server", "ca"),
        ("server", "certificate"),
        ("server", "key"),
        ("ledger", "directory"),
        ("discovery", "file"),
    }
)
_PAIRS: Final = ((("listen", "tls_certificate"), ("listen", "tls_key")), (("server", "certificate"), ("server", "key")))
_SOURCES: Final = ("file", "dns", "registry")
_TLS_ONLY: Final = ("ca", "certificate", "key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything that one `scalellm-trt gateway` needs to know.

    Attributes:
        values: each value of the configuration by its dotted key, defaults included.
    """

    repository: Path
    options: GatewayOptions
    num_workers: int
    log_level: LogLevel
    values: Mapping[str, object]


def load(
    path: Path | None, overrides: Mapping[KeyPath, Scalar], api_key: str | None, admin_key: str | None = None
) -> Setup:
    """Read the file, if there is one, and lay the command line over it.

    Args:
        path: the file; None takes defaults.
        overrides: values of the command line by the key that they stand for.
        api_key: what clients may send; a secret, which stands in no file.
        admin_key: what operators must send at the admin listener; the same.

    Raises:
        RecipeError: with every problem that was found, in reading order.
    """
    tree, problems = (
        _read(path) if path is not None else (Section(place=Place(file=COMMAND_LINE, line=1), entries={}), [])
    )
    tree = _overlaid(_anchored(tree), overrides)
    nodes = dict(walk(tree))
    config, found = _validate(tree, nodes)
    if config is None or problems or found:
        raise RecipeError(limited([*problems, *found], [] if path is None else [path]))
    if config.admin.enabled and not admin_key and not is_loopback(config.admin.host):
        message = f"{config.admin.host} opens the operator's page to the network, where it needs a key"
        hint = "Set SCALELLM_ADMIN_KEY in the environment, or listen on 127.0.0.1 and reach it through ssh -L."
        raise RecipeError([_readable(_problem(nodes, tree, ("admin", "host"), message, hint))])
    return Setup(
        repository=Path(config.repository),
        options=_options(config, api_key or None, admin_key or None),
        num_workers=config.workers,
        log_level=config.log.level,
        values=_flat(config.model_dump()),
    )


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            values |= _flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def _read(path: Path) -> tuple[Section, list[Problem]]:
    try:
        text = read_text(path)
    except RecipeError as error:
        hinted = [dataclasses.replace(problem, hint=HINT) for problem in error.problems]
        raise RecipeError(hinted) from None
    return read(text, path, HINT)


def _anchored(tree: Section, path: KeyPath = ()) -> Section:
    """Let relative paths count from the file that they are written in."""
    entries: dict[str, Node] = {}
    for name, node in tree.entries.items():
        here = (*path, name)
        if isinstance(node, Section):
            entries[name] = _anchored(node, here)
        elif isinstance(node, Leaf) and here in PATH_KEYS and isinstance(node.value, str) and node.value:
            value = str(node.place.file.parent / Path(node.value).expanduser())
            entries[name] = Leaf(place=node.place, value=value)
        else:
            entries[name] = node
    return Section(place=tree.place, entries=entries)


def _overlaid(tree: Section, overrides: Mapping[KeyPath, Scalar]) -> Section:
    for path, value in overrides.items():
        node: Node = Leaf(place=Place(file=COMMAND_LINE, line=1), value=value)
        for name in reversed(path):
            node = Section(place=tree.place, entries={name: node})
        assert isinstance(node, Section)
        tree = merge(tree, node)
    return tree


def _validate(tree: Section, nodes: Mapping[KeyPath, Node]) -> tuple[GatewayConfig | None, list[Problem]]:
    try:
        config = GatewayConfig.model_validate(plain(tree))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        paths = [tuple(str(name) for name in detail["loc"]) for detail in details]
        return None, [_readable(schema_problem(path, nodes, tree.place.file, DOCUMENT)) for path in paths]
    return config, [_readable(problem) for problem in _contradictions(nodes, tree, config)]


def _contradictions(nodes: Mapping[KeyPath, Node], tree: Section, config: GatewayConfig) -> list[Problem]:
    """Return what does not go together."""
    found = []
    for first, second in _PAIRS:
        for here, missing in ((first, second), (second, first)):
            if _is_set(nodes, here) and not _is_set(nodes, missing):
                message, hint = f"needs {dotted(missing)}", "Write both, or none of them."
                found.append(_problem(nodes, tree, here, message, hint))
    for name in _TLS_ONLY:
        if _is_set(nodes, ("server", name)) and not config.server.tls:
            message = "is for TLS, which server.tls does not ask for"
            found.append(_problem(nodes, tree, ("server", name), message, "Write server.tls: true, or remove it."))
    if config.admin.enabled and config.listen.port and config.admin.port == config.listen.port:
        message = f"{config.admin.port} is listen.port too: by its port a connection is known to be an operator's"
        found.append(_problem(nodes, tree, ("admin", "port"), message, "Choose another with --admin-port."))
    if config.server.tls and config.server.upstream == "http2":
        message = "speaks clear text only, and server.tls asks for TLS"
        found.append(_problem(nodes, tree, ("server", "upstream"), message, "Write grpc, or remove it."))
    doubts = config_schema.doubts(config.tenants, _path(config.keys.file))
    doubts += fleet_schema.doubts(config.servers, config.routing)
    if _is_set(nodes, ("server", "url")) and config.servers:
        doubts.append((("server", "url"), "stands beside servers", "Write one of the two."))
    looked_up = [("discovery", name) for name in _SOURCES if _is_set(nodes, ("discovery", name))]
    doubts += [(path, f"stands beside {dotted(looked_up[0])}", "Look in one place.") for path in looked_up[1:]]
    return [*found, *(_problem(nodes, tree, path, message, hint) for path, message, hint in doubts)]


def _problem(nodes: Mapping[KeyPath, Node], tree: Section, path: KeyPath, message: str, hint: str) -> Problem:
    place = nodes[path].place if path in nodes else tree.place
    return Problem(file=place.file, line=place.line, key=dotted(path), message=message, hint=hint)


def _is_set(nodes: Mapping[KeyPath, Node], path: KeyPath) -> bool:
    node = nodes.get(path)
    return isinstance(node, Leaf) and node.value is not None


def _readable(problem: Problem) -> Problem:
    """Show no line of the command line."""
    return dataclasses.replace(problem, file=None, line=None) if problem.file == COMMAND_LINE else problem


def _options(config: GatewayConfig, api_key: str | None, admin_key: str | None) -> GatewayOptions:
    listen, admin, server, discovery = config.listen, config.admin, config.server, config.discovery
    certificate, key = _path(listen.tls_certificate), _path(listen.tls_key)
    return GatewayOptions(
        servers=_servers(config),
        routing=fleet_schema.to_routing(config.routing),
        discovery=DiscoveryOptions(
            file=_path(discovery.file),
            dns=discovery.dns,
            registry=discovery.registry,
            interval_s=discovery.interval_s,
        ),
        server_tls=ServerTls(ca=_path(server.ca), certificate=_path(server.certificate), key=_path(server.key))
        if server.tls
        else None,
        upstream=server.upstream,
        num_channels=server.channels,
        host=listen.host,
        port=listen.port,
        listen_tls=ListenTls(certificate=certificate, key=key) if certificate and key else None,
        has_admin=admin.enabled,
        admin_host=admin.host,
        admin_port=admin.port,
        admin_key=admin_key,
        api_key=api_key,
        key_file=_path(config.keys.file),
        otlp_endpoint=config.tracing.endpoint,
        tenants=config_schema.to_tenants(config.tenants),
        ledger_directory=_path(config.ledger.directory),
        **config.limits.model_dump(),
    )


def _servers(config: GatewayConfig) -> tuple[ServerOptions, ...]:
    """Return the servers to begin with: none where they are looked up and none is named."""
    discovery, url = config.discovery, config.server.url
    is_looked_up = any(value is not None for value in (discovery.file, discovery.dns, discovery.registry))
    one = () if is_looked_up else (ServerOptions(name=url, url=url),)
    return fleet_schema.to_servers(config.servers) or one


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)
