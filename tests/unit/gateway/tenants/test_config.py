from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import config_file
from scalellm_trt.gateway.config_reference import gateway_json_schema, gateway_reference
from scalellm_trt.gateway.tenants.tenant import Tenant

if TYPE_CHECKING:
    from pathlib import Path

    from scalellm_trt.gateway.options import GatewayOptions


def _load(directory: Path, text: str) -> GatewayOptions:
    file = directory / "gateway.yaml"
    file.write_text(text)
    return config_file.load(file, {}, None).options


def test_tenants_are_read_with_their_limits_and_keys(tmp_path: Path) -> None:
    text = """\
keys: {file: gateway.keys}
ledger: {directory: usage}
tenants:
  default: {requests_per_minute: 6}
  alice: {tokens_per_minute: 1000, max_concurrent: 2, priority: high, weight: 2.5, models: [m, n]}
  bob:
    keys: [b1, SCALELLM_API_KEY]
    price_per_million_input: 0
    price_per_million_output: 0.5
"""
    options = _load(tmp_path, text)
    assert options.ledger_directory == tmp_path / "usage"
    assert options.tenants == (
        Tenant(name="default", key_names=("default",), requests_per_minute=6),
        Tenant(
            name="alice",
            key_names=("alice",),
            tokens_per_minute=1000,
            max_concurrent=2,
            priority="high",
            weight=2.5,
            models=frozenset({"m", "n"}),
        ),
        Tenant(
            name="bob",
            key_names=("b1", "SCALELLM_API_KEY"),
            price_per_million_input=0.0,
            price_per_million_output=0.5,
        ),
    )


@pytest.mark.parametrize(
    ("below", "where", "message", "hint"),
    [
        ("  a: {requests_per_minute: 0}", 3, "tenants.a.requests_per_minute: found 0, expected a whole number", "null"),
        ("  a:\n    weigth: 1", 4, "tenants.a.weigth: is not a key of tenants.a", "Did you mean weight?"),
        ("  a:\n    weight: 0", 4, "tenants.a.weight: found 0, expected a number above 0", "default, 1.0"),
        ("  a:\n    priority: hihg", 4, "tenants.a.priority: found 'hihg', expected one of high, normal, low", "high"),
        ("  a:\n    models: m", 4, "tenants.a.models: found 'm', expected a list of names of models", "null = all"),
        ("  a:\n    models:\n      - 3", 5, "tenants.a.models.'0': found 3, expected a list of names", "null = all"),
        ("  a:\n    keys: [x, A]", 4, "tenants.a.keys.'1': found 'A', expected a list of names in the key file", ""),
        ("  a:\n    price_per_million_input: -1", 4, "tenants.a.price_per_million_input: found -1", "price"),
        ("  A: {}", 3, "tenants.A: is not a name for it", "tenants takes a mapping; its names are 1 to 63 of a-z"),
        ("  a:", 3, "tenants.a: found nothing, expected a mapping", "defaults"),
        ("  a: {}\n  b:\n    keys: [a]", 5, "tenants.b.keys: the key 'a' is also that of tenant a", "one tenant"),
    ],
)
def test_a_problem_says_where_what_and_how(tmp_path: Path, below: str, where: int, message: str, hint: str) -> None:
    with pytest.raises(RecipeError) as error:
        _load(tmp_path, f"keys: {{file: k}}\ntenants:\n{below}\n")
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{tmp_path / 'gateway.yaml'}:{where}: {message}")
    assert hint in second


def test_a_tenant_without_a_key_file_is_nobody(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gateway\.yaml:3: tenants\.a: nobody can be this tenant"):
        _load(tmp_path, "tenants:\n  default: {weight: 2}\n  a: {}\n")
    assert len(_load(tmp_path, "tenants:\n  default: {weight: 2}\n  a: {keys: [SCALELLM_API_KEY]}\n").tenants) == 2


def test_editors_check_tenants() -> None:
    validator = jsonschema.Draft7Validator(json.loads(gateway_json_schema()))
    assert validator.is_valid({"tenants": {"a": {"models": ["m"], "weight": 0.5, "priority": "low"}}})
    some_wrong: list[dict[str, object]] = [{"A b": {}}, {"a": {"weight": 0}}, {"a": {"models": "m"}}, {"a": None}]
    for wrong in some_wrong:
        assert not validator.is_valid({"tenants": wrong}), wrong


def test_the_reference_has_a_table_of_a_tenants_keys() -> None:
    assert "## tenants.NAME" in gateway_reference()
    assert "[`NAME`](#tenantsname)" in gateway_reference()
