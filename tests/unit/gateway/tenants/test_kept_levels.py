"""What was left of a minute before a restart is left after it, and nothing that is not known is made up."""

from __future__ import annotations

import fcntl
import math
import time
from typing import TYPE_CHECKING

import pytest

from scalellm_trt.gateway.options import GatewayOptions
from scalellm_trt.gateway.tenants import kept_levels
from scalellm_trt.gateway.tenants.kept_levels import FILE_NAME, KeptLevels
from scalellm_trt.gateway.tenants.quota import Levels, Quota, RefusedError
from scalellm_trt.gateway.tenants.tenancy import Tenancy
from scalellm_trt.gateway.tenants.tenant import Tenant

if TYPE_CHECKING:
    from pathlib import Path

ACME = Tenant(name="acme", key_names=("acme",), tokens_per_minute=60)
OTHER = Tenant(name="other", key_names=("other",), tokens_per_minute=60)


def _open(directory: Path, *tenants: Tenant) -> Tenancy:
    return Tenancy(GatewayOptions(ledger_directory=directory, tenants=tenants))


def _quota(tenancy: Tenancy, tenant: Tenant) -> Quota:
    return Quota(tenant, tenancy._cells.row(tenancy.rows[tenant.name]))


def _left(tenancy: Tenancy, tenant: Tenant) -> float:
    levels = Levels()
    _quota(tenancy, tenant).reserve(0, levels)
    return levels.tokens or 0.0


def _end(tenancy: Tenancy) -> None:
    """Do what the end of a process does."""
    fcntl.flock(tenancy._cells._levels._descriptor, fcntl.LOCK_UN)


def test_a_restart_refills_nothing_whatever_place_a_tenant_has(tmp_path: Path) -> None:
    first = _open(tmp_path, ACME)
    _quota(first, ACME).reserve(55, Levels())
    _end(first)
    second = _open(tmp_path, OTHER, ACME)
    assert _left(second, ACME) < 30
    assert _left(second, OTHER) == 60
    with pytest.raises(RefusedError):
        _quota(second, ACME).reserve(50, Levels())
    _end(second)


def test_another_gateway_at_the_same_time_has_limits_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_levels, "_LOCK_TIMEOUT_S", 0.0)
    first = _open(tmp_path, ACME)
    _quota(first, ACME).reserve(55, Levels())
    second = _open(tmp_path, ACME)
    assert (_left(second, ACME), _left(first, ACME) < 30) == (60, True)
    _end(first)


@pytest.mark.parametrize("damage", ["another boot", "cut", "rubbish", "not a number", "the future"])
def test_what_cannot_be_believed_is_left_out(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _open(tmp_path, ACME)
    _quota(first, ACME).reserve(55, Levels())
    row = KeptLevels.start(first.rows["acme"])
    if damage in ("not a number", "the future"):
        first._cells._levels.cells[row + 3] = math.nan if damage == "not a number" else time.monotonic() + 1000
    _end(first)
    file = tmp_path / FILE_NAME
    if damage == "another boot":
        (tmp_path / "boot_id").write_text("0" * 36)
        monkeypatch.setattr(kept_levels, "_BOOT_ID", tmp_path / "boot_id")
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    elif damage == "rubbish":
        file.write_bytes(b"rubbish" * 100)
    second = _open(tmp_path, ACME)
    assert _left(second, ACME) == 60
    _end(second)


def test_without_room_on_the_disk_limits_still_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*ignored: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    tenancy = _open(tmp_path, ACME)
    _quota(tenancy, ACME).reserve(55, Levels())
    with pytest.raises(RefusedError):
        _quota(tenancy, ACME).reserve(50, Levels())
