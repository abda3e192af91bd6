"""Small values for tests: every argument that a test does not name has a plain default."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from uuid import UUID

from reconciler.model import (
    Account,
    Credential,
    Desired,
    Inbound,
    Instant,
    KeyRow,
    Listed,
    Order,
    Owner,
    Promise,
    Protocol,
    Standing,
)
from reconciler.plan.guard import Budget, Limits
from reconciler.plan.steps import Breach

NOW: Instant = 1_800_000_000.0
HOUR = 3_600.0
DAY = 86_400.0
LATER = NOW + 30 * DAY
VISION = "xtls-rprx-vision"
OURS = Owner("ours")
VLESS = Inbound("vless-in", Protocol.VLESS)
SECOND = Inbound("vless-two", Protocol.VLESS)


def credential(number: int, *, ignored: int = 0) -> Credential:
    """Return the credential of that number; `ignored` fills the two bytes that Xray does not look at."""
    drawn = bytearray(sha256(f"credential {number}".encode()).digest()[:16])
    drawn[6:8] = ignored.to_bytes(2, "big")
    return Credential(UUID(bytes=bytes(drawn)).bytes)


def account(number: int, flow: str = "", *, ignored: int = 0) -> Account:
    """Return the account with the credential of that number."""
    return Account(credential(number, ignored=ignored), flow)


def digest(opens: Credential, inbounds: Iterable[Inbound] = (VLESS,)) -> bytes:
    """Return what stands for the account of a key on a node with these inbounds."""
    text = "|".join(f"{inbound.tag},{inbound.protocol},{inbound.flow}" for inbound in inbounds)
    return sha256(bytes(opens) + text.encode()).digest()[:16]


def promise(
    number: int, until: Instant = LATER, *, live: bool = True, spent: bool = False, flow: str = ""
) -> Promise:
    """Return a promise of the account with that credential."""
    inbound = Inbound(VLESS.tag, VLESS.protocol, flow)
    return Promise(digest(credential(number), [inbound]), until, live, spent)


def key(
    key_id: int,
    standing: Standing = Standing.DESIRED,
    *,
    opens: int | None = None,
    until: Instant = LATER,
    flow: str = "",
    promised: Promise | None = None,
) -> KeyRow:
    """Return what the rows say of a key whose credential has its own number unless `opens` names another."""
    number = key_id if opens is None else opens
    inbound = Inbound(VLESS.tag, VLESS.protocol, flow)
    return KeyRow(
        key_id=key_id,
        credential=credential(number),
        standing=standing,
        until=until,
        changed_at=NOW - DAY,
        digest=digest(credential(number), [inbound]),
        promise=promised,
    )


def kept(key_id: int, standing: Standing = Standing.DESIRED, *, until: Instant = LATER) -> KeyRow:
    """Return a key with a live promise of its own account until `until`."""
    return key(key_id, standing, until=until, promised=promise(key_id, until))


def desired(
    *rows: KeyRow,
    inbounds: tuple[Inbound, ...] = (VLESS,),
    now: Instant = NOW,
    early_spent: int = 0,
    quota_spent: int = 0,
    orders: tuple[Order, ...] = (),
) -> Desired:
    """Return what PostgreSQL says of one node."""
    return Desired(now, inbounds, {row.key_id: row for row in rows}, early_spent, quota_spent, orders)


def listed(name: int | str, opens: int | None = None, flow: str = "", *, ignored: int = 0) -> Listed:
    """Return a user as a node lists it; a number stands for our name of that key."""
    if isinstance(name, int):
        return Listed(OURS.name(name), account(name if opens is None else opens, flow, ignored=ignored))
    return Listed(name, account(0 if opens is None else opens, flow, ignored=ignored))


def actual(*users: Listed, tag: str = VLESS.tag) -> Mapping[str, tuple[Listed, ...]]:
    """Return what a node with one inbound lists."""
    return {tag: users}


def limits(early: int = 2, over_quota: int = 2, share: float = 0.0) -> Limits:
    """Return the budgets of one node."""
    return {Breach.EARLY: Budget(early, share), Breach.OVER_QUOTA: Budget(over_quota, share)}
