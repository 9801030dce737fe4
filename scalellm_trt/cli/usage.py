"""`usage`: what each tenant of a gateway has used, from its ledger, and what that costs."""

from __future__ import annotations

import datetime
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scalellm_trt.cli import tables
from scalellm_trt.cli.gateway import ConfigOption, require_gateway
from scalellm_trt.errors import Problem, RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalellm_trt.gateway.tenants.ledger_files import Used
    from scalellm_trt.gateway.tenants.price import Price

DEFAULT_LEDGER = Path("usage")
_SECONDS = {"h": 3600, "d": 86400}
_NUMBERS = ("requests", "prompt", "cached", "completion", "cost")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(usage)


def usage(
    config: ConfigOption = None,
    ledger: Annotated[
        Path | None, typer.Option(help="The ledger's directory, else that of --config, else usage.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Whole hours from here on, in UTC: 2026-11-25, 2026-11-25T14, 24h or 7d.", show_default=False
        ),
    ] = None,
    price_per_million_input: Annotated[
        float | None, typer.Option(min=0, help="Price of prompts, where --config gives a tenant none.")
    ] = None,
    price_per_million_output: Annotated[float | None, typer.Option(min=0, help="Price of answers, likewise.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Add up what each tenant has used of each model; cached tokens are a part of the prompts'."""
    require_gateway()
    from scalellm_trt.gateway import config_file
    from scalellm_trt.gateway.tenants import ledger_files
    from scalellm_trt.gateway.tenants.price import Price, prices

    options = None if config is None else config_file.load(config, {}, None).options
    directory = ledger or (None if options is None else options.ledger_directory) or DEFAULT_LEDGER
    first_hour = 0 if since is None else int(_seconds(since)) // ledger_files.HOUR_S
    sums = ledger_files.add_up(path for hour, path in ledger_files.hours(directory).items() if hour >= first_hour)
    of_all = Price.of(price_per_million_input, price_per_million_output)
    of_tenants = prices(() if options is None else options.tenants, of_all)
    rows = [_row(*key, used, of_tenants.get(key[0], of_all)) for key, used in sorted(sums.used.items())]
    if sums.num_unreadable:
        typer.echo(f"{directory}: {sums.num_unreadable} lines cannot be read and are not counted", err=True)
    if as_json:
        print(json.dumps({"since": since, "usage": rows, "total": _total(rows)}, indent=2))
    else:
        _print(rows)


def _seconds(since: str) -> float:
    """Return a time in seconds since 1970.

    Raises:
        RecipeError: it is none.
    """
    if found := re.fullmatch(r"([0-9]{1,5})([hd])", since):
        return time.time() - int(found[1]) * _SECONDS[found[2]]
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H"):
        try:
            return datetime.datetime.strptime(since, form).replace(tzinfo=datetime.timezone.utc).timestamp()
        except ValueError:
            continue
    hint = "Allowed: a day such as 2026-11-25, an hour such as 2026-11-25T14, or how long ago: 24h, 7d."
    raise RecipeError([Problem(key="--since", message=f"{since!r} is no time", hint=hint)])


def _row(tenant: str, model: str, used: Used, price: Price | None) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "model": model,
        "requests": used.requests,
        "prompt_tokens": used.prompt_tokens,
        "cached_tokens": used.cached_tokens,
        "completion_tokens": used.completion_tokens,
        "cost": None if price is None else price.cost(used),
    }


def _total(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in names}
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    return {**total, "cost": sum(costs) if costs else None}


def _print(rows: list[dict[str, Any]]) -> None:
    console = tables.console()
    table = tables.table(console, "tenant", "model", *_NUMBERS, numbers=_NUMBERS)
    for row in [*rows, {"tenant": "total", "model": "", **_total(rows)}]:
        cost = "-" if row["cost"] is None else f"{row['cost']:.4f}"
        counts = (row["requests"], row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"])
        table.add_row(row["tenant"], row["model"], *(str(count) for count in counts), cost)
    console.print(table)
