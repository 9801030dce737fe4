"""gateway.yaml read again while the gateway runs: what may change at once, in every worker, and what needs a restart.

Whoever reads it, a worker or their parent, lays the result down in a directory that all workers look at. Requests that
run keep what they began with.
"""

from __future__ import annotations

import fcntl
import os
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.api_keys import KeyRing
from scalellm_trt.gateway.tenants.tenancy import warn_of_models

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from scalellm_trt.gateway.config_file import Setup
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.tenants.tenancy import Tenancy

FILE_NAME: Final = "reloaded"
LIVE: Final = ("servers", "server.url", "routing", "discovery", "keys", "tenants")
"""What changes without a restart: these keys of gateway.yaml and all below them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What is in use from now on.

    Attributes:
        rows: each tenant's place in the workers' shared memory, of tenants that are gone too.
        values: of gateway.yaml, by dotted key.
    """

    options: GatewayOptions
    rows: Mapping[str, int]
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What reading it again has changed.

    Attributes:
        changed: keys that have another value from now on.
        restart: keys whose value in the file is not in use before the gateway is started anew.
    """

    changed: Sequence[str]
    restart: Sequence[str]


class Reloads:
    """What one process knows of it. To be made before workers are forked."""

    def __init__(
        self,
        load: Callable[[], Setup],
        setup: Setup,
        tenancy: Tenancy,
        shared: Path | None = None,
        offered: Collection[str] = (),
    ) -> None:
        """Begin with what is in use now.

        Args:
            load: reads the configuration again; raises RecipeError.
            setup: what `load` returned before.
            tenancy: gives tenants their rows.
            shared: a directory of all workers; None where there is one.
            offered: names of the models that tenants may ask for.
        """
        self._offered = offered
        self._load, self._setup, self._tenancy = load, setup, tenancy
        self._file = None if shared is None else shared / FILE_NAME
        self._state: tuple[int, int] | None = None
        self._latest = Reloaded(options=setup.options, rows=tenancy.rows, values=setup.values)
        self._has_news = False

    @property
    def is_shared(self) -> bool:
        """Whether there are several workers, and a parent that hears signals."""
        return self._file is not None

    def publish(self) -> Outcome:
        """Read the configuration, and let every worker use it within a second; this one when it calls `news`.

        Raises:
            RecipeError: it is wrong, with file and line; everything stays as it was.
        """
        setup = self._load()
        KeyRing(None, setup.options.key_file)
        with self._locked():
            before = self._read()
            rows = self._tenancy.with_rows(setup.options.tenants, before.rows)
            options = _live_of(setup.options, before.options)
            values = {key: value for key, value in self._setup.values.items() if not _is_live(key)}
            values |= {key: value for key, value in setup.values.items() if _is_live(key)}
            self._write(Reloaded(options=options, rows=rows, values=values))
        outcome = Outcome(
            changed=sorted(key for key in {*values, *before.values} if values.get(key) != before.values.get(key)),
            restart=sorted(
                key
                for key in _keys(setup, self._setup)
                if not _is_live(key) and setup.values.get(key) != self._setup.values.get(key)
            ),
        )
        warn_of_models(setup.options.tenants, self._offered)
        fields = {"changed": outcome.changed, "needs_restart": outcome.restart or None}
        request_log.LOGGER.info("configuration read again", extra={"fields": fields})
        return outcome

    def news(self) -> Reloaded | None:
        """Return what is in use from now on, once after each change."""
        latest = self._read()
        has_news, self._has_news = self._has_news, False
        return latest if has_news else None

    def _read(self) -> Reloaded:
        state = None if self._file is None else _state(self._file)
        if self._file is not None and state != self._state:
            latest: Reloaded = pickle.loads(self._file.read_bytes())
            own = self._setup.options
            # Secrets are not laid down: every worker has them from its parent.
            options = replace(latest.options, api_key=own.api_key, admin_key=own.admin_key)
            self._latest, self._state, self._has_news = replace(latest, options=options), state, True
        return self._latest

    def _write(self, reloaded: Reloaded) -> None:
        if self._file is None:
            self._latest, self._has_news = reloaded, True
            return
        secretless = replace(reloaded, options=replace(reloaded.options, api_key=None, admin_key=None))
        temporary = self._file.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(pickle.dumps(secretless))
        temporary.replace(self._file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other worker publish meanwhile."""
        if self._file is None:
            yield
            return
        with self._file.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _live_of(new: GatewayOptions, before: GatewayOptions) -> GatewayOptions:
    return replace(
        before,
        servers=new.servers,
        routing=new.routing,
        discovery=new.discovery,
        key_file=new.key_file,
        tenants=new.tenants,
    )


def _is_live(key: str) -> bool:
    return any(key == live or key.startswith(f"{live}.") for live in LIVE)


def _keys(*setups: Setup) -> set[str]:
    return {key for setup in setups for key in setup.values}


def _state(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
