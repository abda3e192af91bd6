"""What people write for a key, a subscription or a user, and what it stands for."""

import re

from reconciler.cli.session import Session
from reconciler.desired import details, look
from reconciler.desired.look import SubscriptionState
from reconciler.desired.users import User
from reconciler.errors import Invalid, Unknown

_KEY = re.compile(r"(?:key:|k)?([1-9][0-9]{0,18})", re.ASCII | re.IGNORECASE)
_SUBSCRIPTION = re.compile(r"(?:sub|subscription):([1-9][0-9]{0,18})", re.ASCII)
_USER = re.compile(r"(user|id|tg|telegram|name):(.*)", re.ASCII | re.DOTALL)
_KINDS = {"tg": "telegram"}

KEY_BOUND = "a key is written 12, k12 or k12@ and our mark"


async def maybe_key_id(session: Session, text: str) -> int | None:
    """Return the id of the key that `text` may stand for; None when it is no name of a key of ours."""
    plain = _KEY.fullmatch(text)
    if plain:
        return int(plain[1])
    return (await session.owner()).key_id(text) if "@" in text else None


async def key_id(session: Session, text: str) -> int:
    """Return the id of the key that `text` stands for. Raises Invalid; whether it exists is not asked."""
    found = await maybe_key_id(session, text)
    if found is None:
        raise Invalid("key", text, KEY_BOUND)
    return found


def maybe_subscription_id(text: str) -> int | None:
    """Return the id in `sub:12`; None when it is something else."""
    found = _SUBSCRIPTION.fullmatch(text)
    return int(found[1]) if found else None


async def user(session: Session, text: str) -> User:
    """
    Return the user of `user:3`, `tg:4711`, `name:Anna`, or of any of these without the word.

    Raises Unknown, and Invalid with the candidates when several answer.
    """
    found = _USER.fullmatch(text)
    kind, rest = (found[1], found[2]) if found else ("", text)
    return await session.operator.find_user(f"{_KINDS.get(kind, kind)}:{rest}" if kind else rest)


async def subscription_id(session: Session, text: str) -> int:
    """
    Return the subscription of `sub:12`, of a key, or of a user who has just one that is not revoked.

    Raises Unknown, and Invalid with the candidates for a user who has
    several.
    """
    found = maybe_subscription_id(text)
    if found is not None:
        return found
    key = await maybe_key_id(session, text)
    if key is not None:
        return (await details.keys(session.connection, [key]))[0].subscription_id
    candidates = await subscriptions_of(session, text)
    if len(candidates) != 1:
        names = ", ".join(f"sub:{row.subscription_id}" for row in candidates) or "none"
        raise Invalid("subscription", text, f"a user with one subscription; this one's are: {names}")
    return candidates[0].subscription_id or 0


async def subscription_ids(session: Session, text: str) -> list[int]:
    """
    Return the subscription of `sub:12` or of a key, or all of a user's, revoked ones too.

    Raises Unknown, and Invalid with the candidates when several users answer.
    """
    if maybe_subscription_id(text) is not None or await maybe_key_id(session, text) is not None:
        return [await subscription_id(session, text)]
    rows = await look.subscriptions(session.connection, (await _owner(session, text)).user_id)
    return [row.subscription_id for row in rows if row.subscription_id is not None]


async def subscriptions_of(session: Session, text: str) -> list[SubscriptionState]:
    """Return a user's subscriptions that are not revoked. Raises Unknown, Invalid."""
    found = await _owner(session, text)
    rows = await look.subscriptions(session.connection, found.user_id)
    return [row for row in rows if row.subscription_id is not None and row.revoked_at is None]


async def _owner(session: Session, text: str) -> User:
    try:
        return await user(session, text)
    except Unknown as error:
        raise Unknown("key, subscription or user", text) from error
