"""A target as it is written on the command line: name, how it is asked, where, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalellm_trt.bench.run import TargetKind

Api = Literal["chat", "completions"]
SYNTAX = (
    "Write it as NAME=http://HOST:PORT?model=MODEL, NAME=grpc://HOST:PORT/MODEL (tokens), "
    "NAME=grpc-text://HOST:PORT/MODEL (text) or NAME=engine:DIRECTORY."
)
_KINDS: dict[str, TargetKind] = {
    "http": "openai", "https": "openai", "grpc": "triton-tokens", "grpc-text": "triton-text", "engine": "in-process",
}  # fmt: skip
_OPTIONS = {
    "openai": ("model", "api", "stream", "key_env", "ca", "force", "hardware"),
    "triton-tokens": ("force", "hardware"),
    "triton-text": ("force", "hardware"),
    "in-process": ("force", "hardware"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a target is asked: all that a client process needs to know.

    Attributes:
        name: in tables.
        url: `http(s)://host:port[/path]`, `host:port` of gRPC, or empty.
        model: empty until it is known.
        engine: `service.json` of an engine in this process's children.
        api: which of OpenAI's.
        key_env: environment variable that holds the API key; the key itself is nowhere else.
        ca_file: PEM file of whom to trust.
        forces_length: ask for exactly `max_tokens` tokens, whatever the model would have liked.
        hardware: key in data/hardware.yaml.
    """

    name: str
    kind: TargetKind
    url: str = ""
    model: str = ""
    engine: Path | None = None
    api: Api = "chat"
    streams: bool = True
    key_env: str | None = None
    ca_file: Path | None = None
    forces_length: bool = True
    temperature: float = 0.0
    hardware: str | None = None


def parse(text: str) -> Way:
    """Read one `--target`.

    Raises:
        RecipeError: it is none; says what is wrong with it and how one is written.
    """
    name, equals, rest = text.partition("=")
    if not equals or "/" in name or ":" in name:
        name, rest = "", text
    parts = urlsplit(rest)
    if parts.scheme not in _KINDS:
        raise _wrong(text, f"{parts.scheme or rest!r} is no way to ask; known are {', '.join(_KINDS)}")
    kind = _KINDS[parts.scheme]
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_OPTIONS[kind]))
    if unknown:
        raise _wrong(text, f"option {unknown[0]!r} is unknown; allowed here: {', '.join(_OPTIONS[kind])}")
    common = {"forces_length": _flag(text, options, "force"), "hardware": options.get("hardware")}
    if kind == "in-process":
        path = unquote(parts.path)
        if not path:
            raise _wrong(text, "it names no directory")
        return Way(name=name or "engine", kind=kind, engine=Path(path), **common)  # type: ignore[arg-type]
    try:
        port = parts.port
    except ValueError as error:
        raise _wrong(text, str(error)) from error
    if parts.hostname is None or "@" in parts.netloc:
        raise _wrong(text, "it needs a host, and no credentials: name an environment variable with key_env=")
    if kind != "openai":
        address = parts.netloc if port else f"{parts.netloc}:8001"
        model = parts.path.strip("/")
        return Way(name=name or f"{kind}", kind=kind, url=address, model=model, **common)  # type: ignore[arg-type]
    api = options.get("api", "chat")
    if api not in ("chat", "completions"):
        raise _wrong(text, f"api={api} is unknown; allowed: chat, completions")
    return Way(
        name=name or parts.netloc,
        kind=kind,
        url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}",
        model=options.get("model", ""),
        api="chat" if api == "chat" else "completions",
        streams=_flag(text, options, "stream"),
        key_env=options.get("key_env"),
        ca_file=Path(options["ca"]) if "ca" in options else None,
        **common,  # type: ignore[arg-type]
    )


def parse_all(texts: Sequence[str]) -> list[Way]:
    """Read every `--target`.

    Raises:
        RecipeError: one is wrong, or two have the same name.
    """
    ways = [parse(text) for text in texts]
    names = [way.name for way in ways]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise RecipeError([Problem(key="--target", message=f"two targets are called {doubled[0]}", hint=SYNTAX)])
    return ways


def _flag(text: str, options: dict[str, str], name: str) -> bool:
    value = options.get(name, "on")
    if value not in ("on", "off"):
        raise _wrong(text, f"{name}={value}: must be on or off")
    return value == "on"


def _wrong(text: str, message: str) -> RecipeError:
    return RecipeError([Problem(key="--target", message=f"{text}: {message}", hint=SYNTAX)])
