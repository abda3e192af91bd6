"""`node set`: what a node may hold, its links, and where it is."""

from dataclasses import dataclass, field
from pathlib import Path

import click

from reconciler.cli import meeting
from reconciler.cli.confirm import confirm_count
from reconciler.cli.empty import listed_on, print_inhabitants
from reconciler.cli.looking import chosen
from reconciler.cli.options import count_option, json_option
from reconciler.cli.orders import tell_ordered
from reconciler.cli.screen import answer, remark
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.desired import bounds, look
from reconciler.desired.orders import Ordered


@dataclass(slots=True)
class _Set:
    """What was set, whether that changed anything, and what came of it."""

    changed: dict[str, bool] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    orders: list[tuple[str, Ordered]] = field(default_factory=list)


@click.command("set")
@click.argument("name", metavar="NODE")
@click.option("--api", metavar="ADDRESS", help="Where it is; keys that live there take an order.")
@click.option("--capacity", metavar="N|none", help="How many keys it may get; those that it has stay.")
@click.option("--link-template", metavar="TEXT|none", help="Of its links; must hold {uuid}.")
@count_option("keys that stay behind")
@json_option
@click.pass_obj
@asynchronous
async def set_node(
    path: Path | None,
    *,
    name: str,
    api: str | None,
    capacity: str | None,
    link_template: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """
    Change what NODE may hold, its links, or its address.

    Keys that live at its old address stay there, and nobody looks after them
    any more: whoever ends is not removed there. So they are shown, you are
    asked for their number, and an order keeps it. To take a node out of use,
    drain and empty it, and add the other one.
    """
    if api is None and capacity is None and link_template is None:
        raise click.UsageError("give --api, --capacity or --link-template")
    limit = _whole(capacity) if capacity not in (None, "none") else None
    done = _Set()
    async with open_session(path) as session:
        if api is not None:
            await _readdress(session, name, api, count, done, as_json=as_json)
        if capacity is not None:
            done.changed["capacity"] = await session.operator.set_capacity(name, limit)
        if link_template is not None:
            template = None if link_template == "none" else link_template
            done.changed["link template"] = await session.operator.set_link_template(name, template)
    words = ", ".join(f"{what} {'set' if new else 'as before'}" for what, new in done.changed.items())
    document = {
        "name": name,
        "changed": done.changed,
        "warnings": done.warnings,
        "orders": [order for _, order in done.orders],
    }
    answer(f"{name}: {words}", document, as_json=as_json)
    tell_ordered(done.orders, wait=False)
    meeting.warn(done.warnings)


async def _readdress(
    session: Session, name: str, api: str, count: int | None, done: _Set, *, as_json: bool
) -> None:
    """Change the address; what would stay behind at the old one is shown and counted first."""
    [row] = await chosen(session, name)
    behind: list[int] = []
    if bounds.api(api) != row.api:
        owed = await look.keys_owed(session.connection, row.node_id)
        listed = await listed_on(session, row, orphans=True) if owed else set()
        behind = sorted({*owed, *listed})
    if behind:
        remark(f"these keys stay behind at {row.api}, where nobody looks after them any more")
        if not as_json:
            print_inhabitants(name, owed, listed)
        confirm_count(len(behind), "keys that stay behind", count)
    readdressed = await session.operator.set_api(name, api, behind)
    done.changed["api"] = readdressed.changed
    if readdressed.order is not None:
        done.orders.append((name, readdressed.order))
    done.warnings += await meeting.met(session, name)


def _whole(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise click.BadParameter(f"{text!r}: a whole number, or none", param_hint="--capacity") from None
