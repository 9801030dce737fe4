"""The tenants of a gateway: made once, before there are workers, and opened in each of them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from scalellm_trt.errors import Problem, RecipeError
from scalellm_trt.gateway import request_log
from scalellm_trt.gateway.tenants import ledger
from scalellm_trt.gateway.tenants.account import open_account
from scalellm_trt.gateway.tenants.kept_levels import FILE_NAME, fleeting_levels, kept_levels
from scalellm_trt.gateway.tenants.ledger import Ledger
from scalellm_trt.gateway.tenants.quota import Quota
from scalellm_trt.gateway.tenants.shared_cells import SharedCells
from scalellm_trt.gateway.tenants.tenant import DEFAULT_NAME, with_default
from scalellm_trt.gateway.tenants.visit import Visit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.request_log import RequestRecord
    from scalellm_trt.gateway.tenants.account import Account
    from scalellm_trt.gateway.tenants.fair_queue import FairQueue
    from scalellm_trt.gateway.tenants.tenant import Tenant

_NOBODY: Final = nullcontext()
SPARE_ROWS: Final = 1024
"""Of tenants that come while the gateway runs; memory that nobody uses is not taken."""


class Tenancy:
    """What all workers share.

    Attributes:
        rows: each tenant's place in the shared memory, by name.
    """

    def __init__(self, options: GatewayOptions, num_workers: int = 1) -> None:
        """Let every tenant have all that it may, or what was left of that before a restart.

        Raises:
            RecipeError: the ledger cannot be written.
        """
        self._directory = options.ledger_directory
        if self._directory is not None:
            ledger.prepare(self._directory)
        self._book: Ledger | None = None
        self._tenants = self._counted(options.tenants)
        self._num_rows = len(self._tenants) + SPARE_ROWS
        file = None if self._directory is None else self._directory / FILE_NAME
        levels = fleeting_levels(self._num_rows) if file is None else kept_levels(file, self._num_rows)
        self._cells = SharedCells(self._num_rows, num_workers, levels)
        self.rows: Mapping[str, int] = {}
        self.rows = self.with_rows(options.tenants, {})

    def with_rows(self, tenants: Sequence[Tenant], rows: Mapping[str, int]) -> Mapping[str, int]:
        """Return `rows` with one for each new tenant; for whoever lets workers know.

        It may have all of its limits, or what the ledger's directory says was left of them before a restart.

        A row is never given to another tenant: requests of one that is gone may still run.

        Raises:
            RecipeError: there is no place for so many in the shared memory.
        """
        found = dict(rows)
        for tenant in self._counted(tenants):
            if tenant.name not in found:
                if len(found) == self._num_rows:
                    message = f"more than {SPARE_ROWS} tenants were added since the gateway was started"
                    raise RecipeError([Problem(key="tenants", message=message, hint="Start it anew.")])
                found[tenant.name] = row = len(found)
                if not self._cells.claim(row, tenant.name):
                    Quota(tenant, self._cells.row(row)).fill()
        return found

    def take(self, tenants: Sequence[Tenant], rows: Mapping[str, int]) -> None:
        """Have other tenants from now on; `rows` is what `with_rows` said of them. Open the doors again then."""
        self._tenants, self.rows = self._counted(tenants), rows

    def _counted(self, tenants: Sequence[Tenant]) -> Sequence[Tenant]:
        """Return those that are counted: none where nobody is to be."""
        return with_default(tenants) if tenants or self._directory is not None else ()

    def opened(self, worker: int, queue: FairQueue, metrics: Metrics) -> Reception:
        """Return what lets requests in, in one worker."""
        default: Account | None = None
        if self._book is None and self._directory is not None:
            self._book = Ledger(self._directory)
        by_key: dict[str, Account] = {}
        for tenant in self._tenants:
            quota = Quota(tenant, self._cells.row(self.rows[tenant.name], worker))
            account = open_account(tenant, quota, queue, self._book, metrics)
            by_key |= dict.fromkeys(tenant.key_names, account)
            default = account if tenant.name == DEFAULT_NAME else default
        return Reception(by_key, default)

    def forget(self, worker: int) -> None:
        """Forget what a worker that has ended had open."""
        self._cells.forget(worker)


def warn_of_models(tenants: Sequence[Tenant], offered: Collection[str]) -> None:
    """Say in the log what tenants may ask for and nobody offers: a slip of the pen locks a tenant out."""
    for tenant in tenants:
        unknown = sorted((tenant.models or frozenset()) - set(offered))
        if unknown:
            fields = {"key": f"tenants.{tenant.name}.models", "unknown": unknown, "offered": sorted(offered)}
            request_log.LOGGER.warning("a tenant may ask for models that are not there", extra={"fields": fields})


class Reception:
    """Who a request is of."""

    def __init__(self, by_key: Mapping[str, Account], default: Account | None) -> None:
        """Know the account of each key's name, and that of all others; None where there are no tenants."""
        self._by_key, self._default = by_key, default

    def visit(self, record: RequestRecord) -> AbstractContextManager[None]:
        """Return the context in which a request is answered.

        Raises:
            ApiError: when it is entered: 429, the tenant has had what it may have.
        """
        account = self._account(record)
        return _NOBODY if account is None else Visit(account, record)

    def check_model(self, record: RequestRecord, model: str) -> None:
        """Return if the tenant may ask for `model`.

        Raises:
            ApiError: 403, it may not.
        """
        account = self._account(record)
        if account is not None:
            account.check_model(model)

    def tenant(self, record: RequestRecord) -> Tenant | None:
        """Return whose request it is; None where there are no tenants."""
        account = self._account(record)
        return None if account is None else account.tenant

    def _account(self, record: RequestRecord) -> Account | None:
        return self._default if record.key_name is None else self._by_key.get(record.key_name, self._default)
