"""`link`: the one command that prints a credential, because that is what it is for."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import click
import segno

from reconciler.cli import reasons, targets
from reconciler.cli.options import json_option
from reconciler.cli.screen import print_json, remark
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.desired import details, look
from reconciler.desired.look import KeyState, NodeDetail
from reconciler.errors import Invalid
from reconciler.model import Credential

_BARE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_URI = (
    ":/?#[]@!$&'()*+,;=%{}"  # what may stand in one beside letters, digits and -._~, and the braces of fields
)

NOT_IN_FORCE = "one that is in force and placed on a node; `explain` tells why this is not"


@click.command()
@click.argument("key")
@click.option("--qr", is_flag=True, help="Draw each link, too, for a camera.")
@json_option
@click.pass_obj
@asynchronous
async def link(path: Path | None, *, key: str, qr: bool, as_json: bool) -> None:
    """
    Print the link that the customer of KEY opens the door with; it is a password.

    One line for each node that the key is placed on, made of the node's link
    template: {uuid} is the credential, {name} the node's name, {host} the
    host of its API. A node that the key leaves is not among them, once
    another one has it.
    """
    if qr and as_json:
        raise click.UsageError("--qr draws for people, --json is for programs")
    async with open_session(path) as session:
        key_id = await targets.key_id(session, key)
        placed = _to_show(await look.key(session.connection, key_id))
        nodes = await look.nodes(session.connection)
        wanted, pool = await _wanted(session, key_id)
        if not placed:
            raise Invalid("key", key, _unplaced(pool, nodes) if wanted else NOT_IN_FORCE)
        credential = await look.credential(session.connection, key_id)
    links = _links(placed, credential, {node.name: node.api for node in nodes}, wanted=wanted)
    if as_json:
        print_json({"key_id": key_id, "links": links})
        return
    for text in links.values():
        click.echo(text)
        if qr:
            _draw(text)


def _draw(text: str) -> None:
    """Draw a link for a camera. Raises Invalid for one that no code can hold."""
    try:
        code = segno.make(text, micro=False)
    except segno.DataOverflowError:
        bound = "a template whose links a QR code can hold: about 2,900 characters, encoded"
        raise Invalid("link_template", f"… of {len(text):,} characters", bound) from None
    code.terminal(compact=True)


def _links(
    placed: Sequence[KeyState], credential: Credential, apis: Mapping[str, str], *, wanted: bool
) -> dict[str, str]:
    """Return the links by node, with a remark on each that opens no door. Raises Invalid for none at all."""
    links = {}
    for row in placed:
        node = row.node or ""
        if row.link_template is None:
            remark(f"{node} has no link template: `reconciler node set {node} --link-template …`")
            continue
        links[node] = rendered(row.link_template, credential, node, apis[node])
        if row.usable_since is None or row.revoked:
            remark(_closed(row, wanted=wanted))
    if not links:
        raise Invalid("link_template", None, "a template on a node of the key")
    return links


def _to_show(rows: Sequence[KeyState]) -> list[KeyState]:
    """Return the key on the nodes whose links a customer is to have."""
    placed = [row for row in rows if row.node is not None]
    usable = [row for row in placed if row.leaving_at is None and row.usable_since is not None]
    return [row for row in placed if row.leaving_at is None] if usable else placed


async def _wanted(session: Session, key_id: int) -> tuple[bool, str]:
    """Return whether the rows want the key on a node now, and its pool."""
    [key] = await details.keys(session.connection, [key_id])
    [subscription] = await details.subscriptions(session.connection, [key.subscription_id])
    return reasons.in_force(key, subscription, await details.now(session.connection)), key.pool


def _unplaced(pool: str, nodes: Sequence[NodeDetail]) -> str:
    why = reasons.no_room(pool, nodes)
    return "not placed yet: try again in a second" if why is None else f"not placed: {why}"


def _closed(row: KeyState, *, wanted: bool) -> str:
    if wanted:
        return f"not on {row.node} yet: try again in a second, or see `reconciler explain {row.key_id}`"
    return f"the key does not open {row.node} at the moment; `reconciler explain {row.key_id}` tells why"


def rendered(template: str, credential: Credential, node: str, api: str) -> str:
    """
    Fill a node's template.

    What goes in is percent-encoded, and so is what a template has that no
    URI may hold, such as blanks and letters beyond ASCII. Raises Invalid when
    the node has no host.
    """
    host = api.removeprefix("tls:").rpartition(":")[0]
    if "{host}" in template and api.startswith("unix:"):
        raise Invalid("link_template", template, f"without {{host}}: the API of {node} is a socket")
    values = {"uuid": credential.text(), "name": quote(node, safe=""), "host": quote(host, safe="[]:")}
    link = quote(_BARE_PERCENT.sub("%25", template), safe=_URI)
    for field, value in values.items():
        link = link.replace(f"{{{field}}}", value)
    return link
