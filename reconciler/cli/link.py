"""`link`: the one command that prints a credential, because that is what it is for."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import click

from reconciler.cli import reasons, targets
from reconciler.cli.options import json_option
from reconciler.cli.screen import print_json, remark
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.desired import details, look
from reconciler.desired.look import KeyState, NodeDetail
from reconciler.errors import Invalid
from reconciler.model import Credential

NOT_IN_FORCE = "one that is in force and placed on a node; `explain` tells why this is not"


@click.command()
@click.argument("key")
@json_option
@click.pass_obj
@asynchronous
async def link(path: Path | None, *, key: str, as_json: bool) -> None:
    """
    Print the link that the customer of KEY opens the door with; it is a password.

    One line for each node that the key is placed on, made of the node's link
    template: {uuid} is the credential, {name} the node's name, {host} the
    host of its API.
    """
    async with open_session(path) as session:
        key_id = await targets.key_id(session, key)
        placed = [row for row in await look.key(session.connection, key_id) if row.node is not None]
        nodes = await look.nodes(session.connection)
        wanted, pool = await _wanted(session, key_id)
        if not placed:
            raise Invalid("key", key, _unplaced(pool, nodes) if wanted else NOT_IN_FORCE)
        credential = await look.credential(session.connection, key_id)
    apis = {node.name: node.api for node in nodes}
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
    if as_json:
        print_json({"key_id": key_id, "links": links})
    else:
        for text in links.values():
            click.echo(text)


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
    """Fill a node's template; what goes in is percent-encoded. Raises Invalid when it has no host."""
    host = api.removeprefix("tls:").rpartition(":")[0]
    if "{host}" in template and api.startswith("unix:"):
        raise Invalid("link_template", template, f"without {{host}}: the API of {node} is a socket")
    values = {"uuid": credential.text(), "name": quote(node, safe=""), "host": quote(host, safe="[]:")}
    for field, value in values.items():
        template = template.replace(f"{{{field}}}", value)
    return template
