"""What reading gateway.yaml again changes, what waits for a restart, and what a wrong file leaves as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalellm_trt.errors import RecipeError
from scalellm_trt.gateway import config_file
from scalellm_trt.gateway.reloading import Reloads
from scalellm_trt.gateway.tenants.quota import Levels, Quota, RefusedError
from scalellm_trt.gateway.tenants.tenancy import Tenancy

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = "servers: {a: {url: 'h:1'}}\nkeys: {file: keys}\ntenants:\n  acme: {tokens_per_minute: 60}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "keys").write_text("")
    (tmp_path / "gateway.yaml").write_text(BEFORE)
    return tmp_path / "gateway.yaml"


def _reloads(config: Path, shared: Path | None = None) -> tuple[Reloads, Tenancy]:
    setup = config_file.load(config, {}, "sk-secret", "sk-admin")
    tenancy = Tenancy(setup.options, 2)
    return Reloads(lambda: config_file.load(config, {}, "sk-secret", "sk-admin"), setup, tenancy, shared), tenancy


@pytest.mark.parametrize("is_shared", [False, True])
def test_what_may_change_is_news_once_and_the_rest_needs_a_restart(
    config: Path, tmp_path: Path, is_shared: bool
) -> None:
    reloads, _ = _reloads(config, tmp_path if is_shared else None)
    assert reloads.news() is None
    more = "routing: {policy: prefix}\nlisten: {port: 80}\nlimits: {max_streams: 7}\n"
    config.write_text(BEFORE.replace("h:1", "h:2") + more)
    outcome = reloads.publish()
    assert outcome.changed == ["routing.policy", "servers.a.url"]
    assert outcome.restart == ["limits.max_streams", "listen.port"]
    news = reloads.news()
    assert news is not None
    assert (news.options.servers[0].url, news.options.routing.policy) == ("h:2", "prefix")
    assert (news.options.port, news.options.max_streams, news.options.api_key) == (2345, 512, "sk-secret")
    assert reloads.news() is None
    assert reloads.publish().changed == []


def test_another_worker_hears_of_it_and_no_secret_lies_on_the_disk(config: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (one, _), (other, _) = _reloads(config, shared), _reloads(config, shared)
    config.write_text(BEFORE + "routing: {policy: prefix}\n")
    one.publish()
    news = other.news()
    assert news is not None
    assert (news.options.routing.policy, news.options.api_key) == ("prefix", "sk-secret")
    assert other.news() is None
    assert not [file for file in shared.iterdir() if b"sk-" in file.read_bytes()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BEFORE + "routing: {polity: prefix}\n", "gateway.yaml:5: routing.polity: "),
        (BEFORE.replace("file: keys", "file: none"), "none: cannot be read"),
        ("servers: [\n", "gateway.yaml:"),
    ],
)
def test_a_wrong_file_changes_nothing(config: Path, text: str, message: str) -> None:
    reloads, _ = _reloads(config)
    config.write_text(text)
    with pytest.raises(RecipeError, match=message):
        reloads.publish()
    assert reloads.news() is None


def test_a_tenant_keeps_its_row_and_what_is_left_of_its_minute(config: Path) -> None:
    reloads, tenancy = _reloads(config)
    rows = tenancy.rows
    acme = next(tenant for tenant in config_file.load(config, {}, None).options.tenants if tenant.name == "acme")
    Quota(acme, tenancy._cells.row(rows["acme"])).reserve(50, Levels())
    config.write_text(BEFORE.replace("acme: {tokens", "newer: {tokens_per_minute: 10}\n  acme: {weight: 2, tokens"))
    reloads.publish()
    news = reloads.news()
    assert news is not None
    assert news.rows == {**rows, "newer": len(rows)}
    tenants = {tenant.name: tenant for tenant in news.options.tenants}
    with pytest.raises(RefusedError):
        Quota(tenants["acme"], tenancy._cells.row(news.rows["acme"])).reserve(50, Levels())
    Quota(tenants["newer"], tenancy._cells.row(news.rows["newer"])).reserve(10, Levels())
    config.write_text(BEFORE)
    reloads.publish()
    news = reloads.news()
    assert news is not None
    assert "newer" in news.rows  # nobody else gets its row: requests of it may still run
