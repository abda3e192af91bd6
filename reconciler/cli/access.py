"""`grant`, `extend`, `reopen`, `rotate`: who may enter, and until when."""

import sys
from datetime import datetime
from pathlib import Path
from typing import TypedDict, Unpack, cast, get_args

import click

from reconciler.cli import reasons, targets
from reconciler.cli.options import Command, Traffic, json_option, moment, size
from reconciler.cli.options import traffic as how_much
from reconciler.cli.screen import answer, record, remark
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import when
from reconciler.desired import details, look
from reconciler.desired.keys import NewKey, Spread
from reconciler.desired.terms import GIVING, RENEWALS, Kind, Receipt, Renewal, Term


class ReceiptOptions(TypedDict):
    """Why access is given, as options say it."""

    kind: str | None
    external_id: str | None
    amount: int | None
    currency: str | None
    note: str


class GrantOptions(ReceiptOptions):
    """What is granted, as options say it."""

    days: int | None
    until: datetime | None
    starts: datetime | None
    plan: str
    traffic: Traffic | None
    renew: str
    pool: str
    spread: str
    credential: str | None


_RENEW = ("never", *RENEWALS)


def _receipt_options(command: Command) -> Command:
    for option in (
        click.option("--note", default="", help="A remark for the history."),
        click.option("--currency", metavar="EUR", help="Its currency."),
        click.option("--amount", type=int, help="What was paid, in the currency's minor unit: 499 is 4.99."),
        click.option("--external-id", metavar="ID", help="Of the payment; the same again changes nothing."),
        click.option("--kind", type=click.Choice(GIVING), help="Why it is given."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("who", metavar="USER")
@click.option("--days", type=int, help="For how long, from its start.")
@click.option("--until", type=moment, metavar="TIME", help="Until when, with its time zone.")
@click.option("--starts", type=moment, metavar="TIME", help="From when; now unless given.")
@click.option("--traffic", type=how_much, metavar="SIZE", help="How much at most, such as 100GB; no limit.")
@click.option(
    "--renew",
    type=click.Choice(_RENEW),
    default="never",
    show_default=True,
    help="Whether that is for each month, counted from the start.",
)
@click.option("--plan", default="", help="A name for what was sold.")
@click.option("--pool", default="default", show_default=True, help="Which nodes it may be placed on.")
@click.option(
    "--spread",
    type=click.Choice(get_args(Spread)),
    default="one",
    show_default=True,
    help="One node, or all.",
)
@click.option(
    "--credential", metavar="UUID", help="Take over this one; - reads it from standard input, unseen by ps."
)
@_receipt_options
@json_option
@click.pass_obj
@asynchronous
async def grant(path: Path | None, *, who: str, as_json: bool, **given: Unpack[GrantOptions]) -> None:
    """
    Give USER a subscription with one key.

    With `--traffic +100GB` and no term it adds to the limit of the one that
    he has, named by itself, a key or him; who was over it gets in again.
    """
    more = given["traffic"]
    if more is not None and more.more and given["days"] is None and given["until"] is None:
        await _prolong(path, who, 0, more.size_bytes, _receipt(given, _bought(given)), as_json=as_json)
        return
    if (given["days"] is None) == (given["until"] is None):
        raise click.UsageError("give --days or --until, or --traffic with a plus to add to what there is")
    term = Term(
        days=given["days"],
        until=given["until"],
        starts_at=given["starts"],
        traffic_bytes=None if more is None else more.size_bytes,
        renewal=_renewal(given["renew"]),
        plan=given["plan"],
    )
    credential = sys.stdin.readline().strip() if given["credential"] == "-" else given["credential"]
    key = NewKey(credential=credential, pool=given["pool"], spread=cast("Spread", given["spread"]))
    imported = credential is not None
    receipt = _receipt(given, "import" if imported else _bought(given))
    async with open_session(path) as session:
        user = await targets.user(session, who)
        if imported:
            granted = await session.operator.import_key(user.user_id, key, term, receipt)
        else:
            granted = await session.operator.grant(user.user_id, term, key, receipt)
        now = await details.now(session.connection)
        warnings = await _waiting(session, granted.key_id)
    before = "was granted before: " if granted.repeated else ""
    names = f"sub:{granted.subscription_id} with k{granted.key_id} for user:{user.user_id}"
    words = f"{before}{names}, until {when(granted.expires_at, now)}"
    answer(words, record(granted, user_id=user.user_id, warnings=warnings), as_json=as_json)
    for warning in warnings:
        remark(f"warning: {warning}")


@click.command()
@click.argument("what", metavar="SUBSCRIPTION|KEY|USER")
@click.option("--days", type=int, default=0, help="By how long, from its end or from now.")
@click.option("--traffic", type=size, default=None, metavar="SIZE", help="How much more, such as +100GB.")
@click.option("--renew", type=click.Choice(_RENEW), help="Whether the limit is for each month from now on.")
@_receipt_options
@json_option
@click.pass_obj
@asynchronous
async def extend(
    path: Path | None,
    *,
    what: str,
    days: int,
    traffic: int | None,
    renew: str | None,
    as_json: bool,
    **given: Unpack[ReceiptOptions],
) -> None:
    """
    Prolong a subscription, given by itself, by a key, or by a user who has one.

    No node is touched by it: Xray knows no expiry.
    """
    if renew is not None and not (days or traffic):
        await _renew(path, what, renew, as_json=as_json)
    else:
        receipt = _receipt(given, "extension")
        await _prolong(path, what, days, traffic or 0, receipt, renew=renew, as_json=as_json)


async def _renew(path: Path | None, what: str, renew: str, *, as_json: bool) -> None:
    async with open_session(path) as session:
        subscription_id = await targets.subscription_id(session, what)
        await session.operator.set_renewal(subscription_id, _renewal(renew))
    period = "its whole term" if renew == "never" else "each month, counted from its start"
    words = f"the traffic limit of sub:{subscription_id} is for {period}"
    answer(words, {"subscription_id": subscription_id, "renewal": _renewal(renew)}, as_json=as_json)


async def _prolong(
    path: Path | None,
    what: str,
    days: int,
    traffic_bytes: int,
    receipt: Receipt,
    *,
    renew: str | None = None,
    as_json: bool,
) -> None:
    async with open_session(path) as session:
        subscription_id = await targets.subscription_id(session, what)
        if renew is not None:
            await session.operator.set_renewal(subscription_id, _renewal(renew))
        extended = await session.operator.extend(subscription_id, days, receipt, traffic_bytes)
        now = await details.now(session.connection)
    before = "was extended before: " if extended.repeated else ""
    words = f"{before}sub:{subscription_id} lasts until {when(extended.expires_at, now)}"
    answer(words, record(extended, subscription_id=subscription_id), as_json=as_json)


@click.command()
@click.argument("what", metavar="SUBSCRIPTION")
@json_option
@click.pass_obj
@asynchronous
async def reopen(path: Path | None, *, what: str, as_json: bool) -> None:
    """
    Take the revocation of a subscription back, given by itself or by a key of it.

    Keys that were revoked one by one stay revoked.
    """
    async with open_session(path) as session:
        subscription_id = await targets.subscription_id(session, what)
        changed = await session.operator.reopen(subscription_id)
    words = f"sub:{subscription_id} {'is open again' if changed else 'was not revoked'}"
    answer(words, {"subscription_id": subscription_id, "changed": changed}, as_json=as_json)


@click.command()
@click.argument("key")
@json_option
@click.pass_obj
@asynchronous
async def rotate(path: Path | None, *, key: str, as_json: bool) -> None:
    """Give KEY another credential; its link changes, and the old one no longer opens the door."""
    async with open_session(path) as session:
        key_id = await targets.key_id(session, key)
        await session.operator.rotate(key_id)
    words = f"k{key_id} has another credential; `reconciler link {key_id}` prints its link"
    answer(words, {"key_id": key_id}, as_json=as_json)


async def _waiting(session: Session, key_id: int) -> list[str]:
    """Return why a key will wait for its node, as far as that is to be seen now."""
    if any(row.node is not None for row in await look.key(session.connection, key_id)):
        return []
    [key] = await details.keys(session.connection, [key_id])
    why = reasons.no_room(key.pool, await look.nodes(session.connection))
    return [] if why is None else [f"k{key_id} waits for a node: {why}"]


def _receipt(given: ReceiptOptions, kind: Kind) -> Receipt:
    return Receipt(
        kind=cast("Kind", given["kind"] or kind),
        external_id=given["external_id"],
        amount=given["amount"],
        currency=given["currency"],
        note=given["note"],
    )


def _bought(given: ReceiptOptions) -> Kind:
    return "gift" if given["amount"] is None else "payment"


def _renewal(renew: str) -> Renewal | None:
    return None if renew == "never" else cast("Renewal", renew)
