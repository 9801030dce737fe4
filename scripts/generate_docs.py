#!/usr/bin/env python3
"""Write every file that is generated from code; a test fails when one is out of date."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scalellm_trt.cli.reference import cli_reference
from scalellm_trt.gateway import openapi
from scalellm_trt.gateway.config_reference import gateway_json_schema, gateway_reference
from scalellm_trt.plan.reference import combinations_reference
from scalellm_trt.recipe.json_schema import json_schema_text
from scalellm_trt.recipe.reference import recipe_reference

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
GENERATED: dict[str, Callable[[], str]] = {
    "docs/reference/cli.md": cli_reference,
    "docs/reference/openapi.json": openapi.text,
    "docs/reference/combinations.md": combinations_reference,
    "docs/reference/gateway.md": gateway_reference,
    "docs/reference/recipe.md": recipe_reference,
    "scalellm_trt/data/gateway.schema.json": gateway_json_schema,
    "scalellm_trt/data/recipe.schema.json": json_schema_text,
}


def main() -> None:
    for name, make in GENERATED.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
