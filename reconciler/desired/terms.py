"""What is granted, and why: the values that a grant takes."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from reconciler.desired import bounds
from reconciler.errors import Invalid

Kind = Literal["payment", "trial", "gift", "extension", "refund", "voucher", "import"]
GIVING: tuple[str, ...] = tuple(kind for kind in get_args(Kind) if kind != "refund")
"""The kinds that give access; a refund takes it."""

Renewal = Literal["monthly"]
RENEWALS: tuple[str, ...] = get_args(Renewal)

_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """
    What a grant gives: `days` from its start, or `until` an instant; exactly one of them.

    `starts_at` None is now, by the database's clock. `traffic_bytes` None is
    no limit; with a `renewal` it is for each month, counted from the start.
    """

    days: int | None = None
    until: datetime | None = None
    starts_at: datetime | None = None
    traffic_bytes: int | None = None
    renewal: Renewal | None = None
    plan: str = ""

    def check(self) -> None:
        """Raise Invalid for the first value out of its bound."""
        if (self.days is None) == (self.until is None):
            raise Invalid("days", self.days, "exactly one of days and until is given")
        if self.days is not None:
            bounds.whole("days", self.days, 1, bounds.GREATEST_DAYS)
        if self.until is not None:
            bounds.instant("until", self.until)
        if self.starts_at is not None:
            bounds.instant("starts_at", self.starts_at)
        if self.starts_at is not None and self.until is not None and self.until <= self.starts_at:
            raise Invalid("until", str(self.until), f"after the start at {self.starts_at}")
        bounds.traffic(self.traffic_bytes)
        check_renewal(self.renewal)
        if self.renewal is not None and self.traffic_bytes is None:
            raise Invalid("renewal", self.renewal, "with a limit of traffic only")
        bounds.text("plan", self.plan, 100, shortest=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """
    Why access was given; `amount` is in the currency's minor unit.

    Two writes with one `external_id` are one write: the second returns what
    the first did.
    """

    kind: Kind = "gift"
    external_id: str | None = None
    amount: int | None = None
    currency: str | None = None
    note: str = ""

    def check(self, *, refund: bool = False) -> None:
        """Raise Invalid for the first value out of its bound; `refund` says which kind of write it is for."""
        kinds = ("refund",) if refund else GIVING
        if self.kind not in kinds:
            raise Invalid("kind", self.kind, f"one of {', '.join(kinds)}")
        if (
            self.external_id is not None
            and bounds.text("external_id", self.external_id, 200) != self.external_id
        ):
            raise Invalid("external_id", self.external_id, "no blanks around it")
        if (self.amount is None) != (self.currency is None):
            raise Invalid("amount", self.amount, "an amount and a currency, or neither")
        if self.amount is not None:
            bounds.whole(
                "amount", self.amount, 1 if refund else -bounds.GREATEST_BIGINT, bounds.GREATEST_BIGINT
            )
        if self.currency is not None and not _CURRENCY.fullmatch(self.currency):
            raise Invalid("currency", self.currency, "three capital letters, such as EUR")
        bounds.text("note", self.note, 2000, shortest=0, lines=True)


def check_renewal(renewal: str | None) -> None:
    """Raise Invalid unless a limit may be renewed so."""
    if renewal is not None and renewal not in RENEWALS:
        raise Invalid("renewal", renewal, f"one of {', '.join(RENEWALS)}, or none")
