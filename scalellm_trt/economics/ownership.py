"""What an hour of a card costs that stands in one's own rack: purchase over its life, and the power it takes."""

from __future__ import annotations

from dataclasses import dataclass

HOURS_A_YEAR = 8760


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """One card with its share of the machine around it.

    Attributes:
        purchase_usd: less what it will be sold for.
        lifetime_years: until then.
        watts: at the socket, under load.
        usd_per_kwh: price of electricity.
        utilization: share of all hours in which it works, 0 to 1; the others are paid by these.
        idle_watts: at the socket, the rest of the time.
    """

    purchase_usd: float
    lifetime_years: float
    watts: float
    usd_per_kwh: float
    utilization: float
    idle_watts: float

    @property
    def fixed_usd_per_day(self) -> float:
        """What a day costs in which it does nothing.

        Formula: purchase / (years * 365) + idle_watts / 1000 * 24 * usd_per_kwh, USD/day
        """
        return self.purchase_usd / (self.lifetime_years * HOURS_A_YEAR / 24) + self._power_usd(self.idle_watts) * 24

    @property
    def usd_per_busy_hour(self) -> float:
        """What an hour of work adds to that.

        Formula: (watts - idle_watts) / 1000 * usd_per_kwh, USD/h
        """
        return self._power_usd(self.watts - self.idle_watts)

    @property
    def usd_per_hour(self) -> float:
        """What an hour of work costs, idle hours included.

        Formula: fixed_usd_per_day / (24 * utilization) + usd_per_busy_hour, USD/h
        """
        return self.fixed_usd_per_day / (24 * self.utilization) + self.usd_per_busy_hour

    def _power_usd(self, watts: float) -> float:
        return watts / 1000 * self.usd_per_kwh
