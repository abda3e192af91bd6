"""`link`: the one command that prints a credential, because that is what it is for."""

from pathlib import Path
from urllib.parse import quote

import click

from reconciler.cli import targets
from reconciler.cli.options import json_option
from reconciler.cli.screen import print_json, remark
from reconciler.cli.session import asynchronous, open_session
from reconciler.desired import look
from reconciler.errors import Invalid
from reconciler.model import Credential


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
        if not placed:
            raise Invalid("key", key, "one that is placed on a node; `explain` tells why this is not")
        credential = await look.credential(session.connection, key_id)
        apis = {node.name: node.api for node in await look.nodes(session.connection)}
    links = {}
    for row in placed:
        node = row.node or ""
        if row.link_template is None:
            remark(f"{node} has no link template: `reconciler node set {node} --link-template …`")
            continue
        links[node] = rendered(row.link_template, credential, node, apis[node])
        if row.usable_since is None or row.revoked:
            remark(f"the key does not open {node} at the moment; `reconciler explain {key_id}` tells why")
    if not links:
        raise Invalid("link_template", None, "a template on a node of the key")
    if as_json:
        print_json({"key_id": key_id, "links": links})
    else:
        for text in links.values():
            click.echo(text)


def rendered(template: str, credential: Credential, node: str, api: str) -> str:
    """Fill a node's template; what goes in is percent-encoded. Raises Invalid when it has no host."""
    host = api.removeprefix("tls:").rpartition(":")[0]
    if "{host}" in template and api.startswith("unix:"):
        raise Invalid("link_template", template, f"without {{host}}: the API of {node} is a socket")
    values = {"uuid": credential.text(), "name": quote(node, safe=""), "host": quote(host, safe="[]:")}
    for field, value in values.items():
        template = template.replace(f"{{{field}}}", value)
    return template
