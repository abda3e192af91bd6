"""`explain`: why a key is on its node, or not, in words."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import click

from reconciler.cli import reasons, targets
from reconciler.cli.history import print_history
from reconciler.cli.looking import chosen, look_at
from reconciler.cli.options import json_option
from reconciler.cli.screen import print_json, record, say
from reconciler.cli.session import Session, asynchronous, open_session
from reconciler.cli.words import plain
from reconciler.desired import details, look
from reconciler.desired.details import Carrier, KeyFacts, KeyTraffic
from reconciler.errors import NodeError, Unknown
from reconciler.loop.look import Look
from reconciler.model import Node, NodeState, Standing

Looks = dict[int, Look | NodeError]


@dataclass(frozen=True, slots=True)
class OnNode:
    """One key on one node: what rows, promises and the node itself say; None where it did not answer."""

    node: str
    state: NodeState
    standing: Standing | None
    carrier: Carrier
    present_on: list[str] | None
    sentences: list[str]


@dataclass(frozen=True, slots=True)
class Explained:
    """All that is known of one key."""

    key: KeyFacts
    traffic: KeyTraffic
    sentences: list[str]
    nodes: list[OnNode] = field(default_factory=list)


@click.command()
@click.argument("target", metavar="KEY|USER")
@json_option
@click.pass_obj
@asynchronous
async def explain(path: Path | None, *, target: str, as_json: bool) -> None:
    """
    Tell in words why a key is on its node, or not; of a USER, every key.

    Whose it is and until when; on which node it belongs and why; whether it
    is there at this moment; what it is promised; what the daemon does next.
    The nodes are asked by the daemon's own code.
    """
    async with open_session(path) as session:
        keys = await _keys(session, target)
        now = await details.now(session.connection)
        looks: Looks = {}
        explained = [await _explain(session, key, now, looks) for key in keys]
        ids = sorted({key.subscription_id for key in keys})
        history = {number: await look.grants(session.connection, number) for number in ids}
    if as_json:
        print_json({"keys": [_document(one) for one in explained], "history": history})
        return
    if not explained:
        say("There is no key of this user.")
    for one in explained:
        _print(one)
    print_history(history)


async def _keys(session: Session, target: str) -> list[KeyFacts]:
    key_id = await targets.maybe_key_id(session, target)
    if key_id is not None:
        return await details.keys(session.connection, [key_id])
    try:
        user = await targets.user(session, target)
    except Unknown:
        raise Unknown("key or user", target) from None
    rows = await look.subscriptions(session.connection, user.user_id)
    ids = [row.subscription_id for row in rows if row.subscription_id is not None]
    return await details.keys_of(session.connection, ids)


async def _explain(session: Session, key: KeyFacts, now: datetime, looks: Looks) -> Explained:
    [subscription] = await details.subscriptions(session.connection, [key.subscription_id])
    traffic = await details.traffic(session.connection, key.key_id)
    sentences = [*reasons.key_sentences(key, subscription, now), *reasons.traffic_sentences(traffic, now)]
    carriers = await details.carriers(session.connection, key.key_id)
    if not carriers:
        nodes = await look.nodes(session.connection)
        nowhere = reasons.nowhere_sentence(key, subscription, nodes, now)
        return Explained(key, traffic, [*sentences, nowhere])
    on_nodes = [await _on_node(session, key.key_id, carrier, now, looks) for carrier in carriers]
    return Explained(key, traffic, sentences, on_nodes)


async def _on_node(session: Session, key_id: int, carrier: Carrier, now: datetime, looks: Looks) -> OnNode:
    [node] = await chosen(session, carrier.node)
    seen = looks.get(node.node_id) or await _look(session, node)
    looks[node.node_id] = seen
    if isinstance(seen, NodeError):
        reader = await session.reader()
        row = (await reader.snapshot(node.node_id, [key_id])).rows.get(key_id)
        told = [f"Whether it is there now is not known: {plain(str(seen))}."]
        present = None
    else:
        row = seen.desired.rows.get(key_id)
        told = [reasons.presence_sentence(key_id, seen), *reasons.next_sentences(key_id, seen)]
        present = [tag for tag, keys in seen.plan.present.items() if key_id in keys]
    standing = row.standing if row else None
    said = [
        reasons.standing_sentence(standing, carrier, now),
        told[0],
        reasons.promise_sentence(carrier, now),
        *told[1:],
    ]
    return OnNode(carrier.node, node.state, standing, carrier, present, said)


async def _look(session: Session, node: Node) -> Look | NodeError:
    try:
        return await look_at(session, node)
    except NodeError as error:
        return error


def _document(explained: Explained) -> dict[str, object]:
    nodes = [record(one) for one in explained.nodes]
    traffic = record(explained.traffic)
    return {**record(explained.key), "traffic": traffic, "sentences": explained.sentences, "nodes": nodes}


def _print(explained: Explained) -> None:
    first, *others = explained.sentences
    say(first, "bold")
    for sentence in others:
        say(sentence)
    for one in explained.nodes:
        say("")
        for sentence in one.sentences:
            say(sentence)
    say("")
