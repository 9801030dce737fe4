"""The tenants of a gateway: made once, before there are workers, and opened in each of them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from scalellm_trt.gateway.tenants import ledger
from scalellm_trt.gateway.tenants.account import open_account
from scalellm_trt.gateway.tenants.ledger import Ledger
from scalellm_trt.gateway.tenants.quota import Quota
from scalellm_trt.gateway.tenants.shared_cells import SharedCells
from scalellm_trt.gateway.tenants.tenant import DEFAULT_NAME, with_default
from scalellm_trt.gateway.tenants.visit import Visit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from scalellm_trt.gateway.metrics import Metrics
    from scalellm_trt.gateway.options import GatewayOptions
    from scalellm_trt.gateway.request_log import RequestRecord
    from scalellm_trt.gateway.tenants.account import Account
    from scalellm_trt.gateway.tenants.fair_queue import FairQueue
    from scalellm_trt.gateway.tenants.tenant import Tenant

_NOBODY: Final = nullcontext()


class Tenancy:
    """What all workers share."""

    def __init__(self, options: GatewayOptions, num_workers: int = 1) -> None:
        """Let every tenant have all that it may.

        Raises:
            RecipeError: the ledger cannot be written.
        """
        self._directory = options.ledger_directory
        if self._directory is not None:
            ledger.prepare(self._directory)
        has_any = options.tenants or self._directory is not None
        self._tenants = with_default(options.tenants) if has_any else ()
        self._cells = SharedCells(len(self._tenants), num_workers)
        for number, tenant in enumerate(self._tenants):
            Quota(tenant, self._cells.row(number)).fill()

    def opened(self, worker: int, queue: FairQueue, metrics: Metrics) -> Reception:
        """Return what lets requests in, in one worker."""
        default: Account | None = None
        book = None if self._directory is None else Ledger(self._directory)
        by_key: dict[str, Account] = {}
        for number, tenant in enumerate(self._tenants):
            quota = Quota(tenant, self._cells.row(number, worker))
            account = open_account(tenant, quota, queue, book, metrics)
            by_key |= dict.fromkeys(tenant.key_names, account)
            default = account if tenant.name == DEFAULT_NAME else default
        return Reception(by_key, default)

    def forget(self, worker: int) -> None:
        """Forget what a worker that has ended had open."""
        self._cells.forget(worker)


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
