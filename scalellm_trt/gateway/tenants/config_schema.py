"""What gateway.yaml may say of tenants and of the ledger, and the tenants that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from scalellm_trt.gateway import api_keys
from scalellm_trt.gateway.tenants.tenant import DEFAULT_NAME, Priority, Tenant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_COUNT: Final = 2**31 - 1

_Count = Annotated[int, Field(ge=1, le=_MAX_COUNT, strict=True)]
_Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_ModelName = Annotated[str, Field(min_length=1)]
_KeyName = Annotated[str, Field(pattern=rf"^({api_keys.NAME.pattern}|{api_keys.ENVIRONMENT_NAME})$")]
TenantName = Annotated[str, Field(pattern=rf"^{api_keys.NAME.pattern}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TenantSection(_Section):
    """What one tenant may have; every limit holds over all workers together."""

    requests_per_minute: _Count | None = Field(
        default=None, description="requests each minute, a minute's worth at once; else 429; null = no limit"
    )
    tokens_per_minute: _Count | None = Field(
        default=None,
        description="tokens of prompts and answers each minute: a request takes its prompt and all that its answer may "
        "have, and gives back at its end what it did not use; else 429; null = no limit",
    )
    max_concurrent: _Count | None = Field(
        default=None, description="requests at once, those that wait for their turn too; else 429; null = no limit"
    )
    priority: Priority = Field(
        default="normal",
        description="class among requests that wait: a higher one goes first; each lower one still gets a twentieth",
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="share of the tokens among tenants of the same class that wait",
    )
    models: list[_ModelName] | None = Field(
        default=None,
        json_schema_extra={"patternErrorMessage": "a list of names of models"},
        description="models that it may ask for; else 403; null = all",
    )
    keys: list[_KeyName] | None = Field(
        default=None,
        json_schema_extra={
            "patternErrorMessage": f"a list of names in the key file, or {api_keys.ENVIRONMENT_NAME} for the "
            "environment's key"
        },
        description="keys that are its own; null = the key of its name",
    )
    price_per_million_input: _Price | None = Field(
        default=None, description="price of a million tokens of prompts, for `scalellm-trt usage`; null = none"
    )
    price_per_million_output: _Price | None = Field(
        default=None, description="price of a million tokens of answers; null = none"
    )


class LedgerSection(_Section):
    """What each tenant has used: on disk before a client sees the end of its answer, so that `kill -9` loses none."""

    directory: str | None = Field(
        default=None,
        min_length=1,
        json_schema_extra={"patternErrorMessage": "a path, relative to this file"},
        description="where it is kept, a small file for each hour, read by `scalellm-trt usage`; null = not at all",
    )


def to_tenants(sections: Mapping[str, TenantSection]) -> tuple[Tenant, ...]:
    """Return the tenants that are described."""
    return tuple(_tenant(name, section) for name, section in sections.items())


def _tenant(name: str, section: TenantSection) -> Tenant:
    values = section.model_dump(exclude={"keys", "models"})
    models = None if section.models is None else frozenset(section.models)
    return Tenant(name=name, key_names=key_names(name, section), models=models, **values)


def key_names(name: str, section: TenantSection) -> tuple[str, ...]:
    """Return the names of a tenant's keys."""
    return (name,) if section.keys is None else tuple(section.keys)


def doubts(sections: Mapping[str, TenantSection], key_file: Path | None) -> list[tuple[tuple[str, ...], str, str]]:
    """Return what does not go together: the key's path, what is wrong, what to do."""
    found = []
    owners: dict[str, str] = {}
    for name, section in sections.items():
        own = key_names(name, section)
        place: tuple[str, ...] = ("tenants", name) if section.keys is None else ("tenants", name, "keys")
        for key in own:
            if key in owners:
                message = f"the key {key!r} is also that of tenant {owners[key]}"
                found.append((place, message, "A key has one tenant: remove it from one of them."))
            owners.setdefault(key, name)
        if key_file is None and name != DEFAULT_NAME and api_keys.ENVIRONMENT_NAME not in own:
            message = "nobody can be this tenant: no key file is named"
            hint = f"Write keys.file, or keys: [{api_keys.ENVIRONMENT_NAME}] for the key of the environment."
            found.append((place, message, hint))
    return found
