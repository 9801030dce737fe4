"""A user's own prices in, `Price` rows out: rented by the hour, or owned with purchase price, life and power."""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scalellm_trt import facts
from scalellm_trt.economics.ownership import Ownership
from scalellm_trt.economics.prices import Price, prices
from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.facts.rows import Origin, nearest
from scalellm_trt.recipe.file_text import read_text
from scalellm_trt.recipe.messages import Document, limited, schema_problem
from scalellm_trt.recipe.tree import Refused, dotted, plain, walk
from scalellm_trt.recipe.yaml_reader import read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from scalellm_trt.recipe.tree import KeyPath, Node, Section

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1, json_schema_extra={"patternErrorMessage": "a text"})]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class OwnedSection(_Section):
    """A card of one's own, with its share of the machine around it."""

    purchase_usd: _NotNegative = Field(description="what it cost, less what it will be sold for")
    lifetime_years: _Positive = Field(description="years until then")
    watts: _Positive = Field(description="power at the socket under load")
    usd_per_kwh: _NotNegative = Field(description="price of electricity")
    utilization: float = Field(
        gt=0, allow_inf_nan=False, description="share of all hours in which it works, up to 1; these pay for the others"
    )
    idle_watts: _NotNegative = Field(default=0.0, description="power at the socket the rest of the time")


class PriceSection(_Section):
    """One card: rented by the hour, or owned."""

    gpu: _Text = Field(description="the card, a name of data/hardware.yaml such as rtx4090")
    provider: _Text = Field(description="who takes the money")
    usd_per_hour: _Positive | None = Field(default=None, description="for one card; null where it is owned")
    owned: OwnedSection | None = Field(default=None, description="in place of usd_per_hour")
    default: bool = Field(default=False, description="the row that counts for its card, where several are given")
    date: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] = Field(
        description="the day on which it was so, in quotes",
        json_schema_extra={"patternErrorMessage": "a day in quotes, such as '2026-11-25'"},
    )
    source: _Text = Field(description="where it says so")


class PriceFile(_Section):
    """All of them by a name of your own."""

    prices: dict[_Name, PriceSection] = Field(
        description="the rows",
        json_schema_extra={"patternErrorMessage": "letters, digits, dots, dashes, underscores"},
    )


DOCUMENT: Final = Document(noun="a price file", model=PriceFile)
HINT: Final = (
    "A price file is `prices:` and below it rows such as\n"
    "    my-card: {gpu: rtx4090, provider: me, usd_per_hour: 0.4, date: '2026-11-25', source: a bill}"
)


def load(path: Path) -> Mapping[str, Price]:
    """Return the rows of a file, then the bundled ones of the cards that it does not name.

    Raises:
        RecipeError: with every problem by file, line and key.
    """
    tree, problems = _read(path)
    nodes = dict(walk(tree))
    try:
        found = PriceFile.model_validate(plain(tree))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        paths = [tuple(str(name) for name in detail["loc"]) for detail in details]
        told = [place for place in paths if not isinstance(nodes.get(place), Refused)]
        problems += [schema_problem(place, nodes, path, DOCUMENT) for place in told]
        raise RecipeError(limited(problems, [path])) from None
    problems += [_problem(nodes, tree, *doubt) for doubt in _doubts(found)]
    if problems:
        raise RecipeError(limited(problems, [path]))
    own = {name: _price(name, section) for name, section in found.prices.items()}
    cards = {price.gpu for price in own.values()}
    return {**own, **{name: price for name, price in prices().items() if price.gpu not in cards and name not in own}}


def _read(path: Path) -> tuple[Section, list[Problem]]:
    try:
        text = read_text(path)
    except RecipeError as error:
        raise RecipeError([dataclasses.replace(problem, hint=HINT) for problem in error.problems]) from None
    return read(text, path, HINT)


def _doubts(found: PriceFile) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield what the schema cannot know."""
    known = [name for name, row in facts.hardware().items() if row.kind == "gpu"]
    for name, section in found.prices.items():
        here = ("prices", name)
        if section.gpu not in facts.hardware():
            near = nearest(section.gpu, known)
            hint = f"Nearest: {near}. " if near else ""
            yield (*here, "gpu"), f"{section.gpu!r} is no known card", f"{hint}Known: {', '.join(known)}."
        if (section.usd_per_hour is None) == (section.owned is None):
            what = "neither usd_per_hour nor owned" if section.owned is None else "both usd_per_hour and owned"
            yield here, f"has {what}", "Write usd_per_hour for a rented card, or owned with its keys for your own."
        if section.owned is not None and section.owned.utilization > 1:
            yield (*here, "owned", "utilization"), "is more than 1", "It is a share: 0.5 is twelve hours a day."
        if section.owned is not None and section.owned.idle_watts > section.owned.watts:
            yield (*here, "owned", "idle_watts"), "is more than watts", "watts is under load, idle_watts without."
        try:
            datetime.date.fromisoformat(section.date)
        except ValueError:
            yield (*here, "date"), f"{section.date!r} is no day", "Write year-month-day, such as '2026-11-25'."


def _problem(nodes: Mapping[KeyPath, Node], tree: Section, path: KeyPath, message: str, hint: str) -> Problem:
    place = nodes[path].place if path in nodes else tree.place
    return Problem(file=place.file, line=place.line, key=dotted(path), message=message, hint=hint)


def _price(name: str, section: PriceSection) -> Price:
    owned = None if section.owned is None else Ownership(**section.owned.model_dump())
    usd_per_hour = section.usd_per_hour if owned is None else owned.usd_per_hour
    assert usd_per_hour is not None, "checked: one of both is there"
    return Price(
        name=name,
        gpu=section.gpu,
        provider=section.provider,
        usd_per_hour=usd_per_hour,
        is_default=section.default,
        origin=Origin(source=section.source, date=datetime.date.fromisoformat(section.date), verified=False),
        owned=owned,
    )
