"""Why a key is where it is, in sentences. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from reconciler.cli.words import away, plain, size, span, when
from reconciler.desired.details import Carrier, KeyFacts, KeyTraffic
from reconciler.desired.look import NodeDetail, SubscriptionState
from reconciler.loop.look import Look
from reconciler.model import NodeState, Standing, StepKind
from reconciler.plan.steps import Step

SHOWN = 5
"""Nodes that a sentence names."""

_STANDINGS = {
    Standing.DESIRED: "It belongs on {node}",
    Standing.NOT_STARTED: "It does not belong on {node} yet, because its subscription has not begun",
    Standing.EXPIRED: "It does not belong on {node} any more, because its subscription has ended",
    Standing.REVOKED: "It does not belong on {node} any more, because it was revoked",
    Standing.OVER_QUOTA: "It does not belong on {node} now, because its traffic is used up",
    Standing.WAITING: "Its placement on {node} was ended, but it stays there until another node has it",
    Standing.MOVED: "It does not belong on {node} any more: it was moved, and another node has it",
    Standing.UNPLACED: "Its placement on {node} was ended, and no other node has it yet",
    Standing.STRAY: "It was never placed on {node}: what is found there is kept and reported as an orphan",
}
_DOES = {
    StepKind.EXTEND: "prolong its promise",
    StepKind.ADD: "add it",
    StepKind.REPLACE: "replace its account",
    StepKind.REMOVE: "remove it",
}


def key_sentences(key: KeyFacts, subscription: SubscriptionState, now: datetime) -> list[str]:
    """Say whose key it is and until when."""
    nodes = "one node" if key.spread == "one" else "all nodes"
    whose = f"k{key.key_id} is a key of user:{key.user_id} {plain(subscription.user_name)}"
    sentences = [f"{whose}, for {nodes} of the pool {key.pool}.", _subscription(subscription, now)]
    if key.revoked_at is not None:
        sentences.append(f"The key itself was revoked at {when(key.revoked_at, now)}.")
    return sentences


def _subscription(row: SubscriptionState, now: datetime) -> str:
    name = f"Its subscription sub:{row.subscription_id}"
    if row.revoked_at is not None:
        return f"{name} was revoked at {when(row.revoked_at, now)}."
    if row.expires_at is None or row.starts_at is None:
        return f"{name} has no term."
    if row.starts_at > now:
        return f"{name} begins at {when(row.starts_at, now)}."
    verb = "lasts until" if row.expires_at > now else "ended at"
    used = f", {size(row.used_bytes)} used"
    limit = "" if row.traffic_limit_bytes is None else f" of {size(row.traffic_limit_bytes)}"
    over = ", which is all of it" if row.bucket == "over_quota" else ""
    return f"{name} {verb} {when(row.expires_at, now)}{used}{limit}{over}."


def traffic_sentences(traffic: KeyTraffic, now: datetime) -> list[str]:
    """Say what a key has carried, and when its subscription's limit begins anew."""
    if traffic.counted_at is None:
        told = ["It has carried nothing yet, as far as it was counted."]
    else:
        carried = f"It has carried {size(traffic.up_bytes)} up and {size(traffic.down_bytes)} down"
        told = [f"{carried}, the last of it counted {away(traffic.counted_at, now)}."]
    if traffic.renewal is not None and traffic.month_since is not None and traffic.next_month_at is not None:
        since = f"The limit is for each month: this one began at {when(traffic.month_since, now)}"
        told.append(f"{since}, the next begins at {when(traffic.next_month_at, now)}.")
    return told


def nowhere_sentence(
    key: KeyFacts, subscription: SubscriptionState, nodes: Iterable[NodeDetail], now: datetime
) -> str:
    """Say why a key is on no node at all."""
    if not in_force(key, subscription, now):
        return "It is placed on no node, and needs none."
    why = no_room(key.pool, nodes)
    if why is not None:
        return f"It is placed on no node: {why}."
    return "It is placed on no node yet: a running daemon does it within a second."


def in_force(key: KeyFacts, subscription: SubscriptionState, now: datetime) -> bool:
    """Whether the rows want the key on a node now, whichever that is."""
    begun = subscription.starts_at is not None and subscription.starts_at <= now
    return begun and key.revoked_at is None and subscription.bucket in ("active", "expiring_in_7d")


def no_room(pool: str, nodes: Iterable[NodeDetail]) -> str | None:
    """Say why no node takes a new key of this pool; None when one does."""
    serving = [node for node in nodes if node.pool == pool]
    active = [node for node in serving if node.state == NodeState.ACTIVE]
    if not serving:
        return f"no node serves its pool {pool}"
    if not active:
        others = ", ".join(f"{node.name} is {node.state}" for node in serving[:SHOWN])
        return f"its pool {pool} has no active node ({others}{', …' if serving[SHOWN:] else ''})"
    if all(node.capacity is not None and node.placed >= node.capacity for node in active):
        return f"every active node of its pool {pool} is full"
    return None


def standing_sentence(standing: Standing | None, carrier: Carrier, now: datetime) -> str:
    """Say whether the rows want the key on the node, and why."""
    if standing is None:
        return f"No row explains it on {carrier.node}."
    words = _STANDINGS[standing].format(node=carrier.node)
    if carrier.placed_at is None:
        return f"{words}."
    leaving = ""
    if carrier.leaving_at is not None:
        grace = f"{span(carrier.grace_seconds)} after" if carrier.grace_seconds else "as soon as"
        told = f"It was told to leave at {when(carrier.leaving_at, now)}"
        leaving = f" {told}, and goes {grace} another node surely has it."
    return f"{words}; placed there at {when(carrier.placed_at, now)}: {plain(carrier.reason or '')}.{leaving}"


def promise_sentence(carrier: Carrier, now: datetime) -> str:
    """Say what is owed."""
    if carrier.promised_since is None and carrier.left_at is not None:
        return f"Its last promise there ended at {when(carrier.left_at, now)}: {carrier.left_reason}."
    if carrier.promised_since is None:
        return "No promise of it is on record there."
    until = (
        "without an end" if carrier.promised_until is None else f"until {when(carrier.promised_until, now)}"
    )
    return f"It is promised there since {when(carrier.promised_since, now)}, {until}."


def presence_sentence(key_id: int, look: Look) -> str:
    """Say on which inbounds the node lists the key."""
    present = look.plan.present
    on = [tag for tag in present if key_id in present[tag]]
    off = [tag for tag in present if key_id not in present[tag]]
    unknown = [
        f"{tag} cannot be listed ({plain(look.observation.refusals.get(tag, ''))})"
        for tag in look.plan.unlisted
    ]
    words = [
        f"It is on the node now, on {', '.join(on)}" if on else "It is not on the node now",
        f"not on {', '.join(off)}" if on and off else "",
        *unknown,
    ]
    return f"{'; '.join(word for word in words if word)}."


def next_sentences(key_id: int, look: Look) -> list[str]:
    """Say what the daemon will do, by its own plan."""
    plan = look.plan
    sentences = []
    if steps := [step for step in plan.steps if step.key_id == key_id]:
        does = _does(steps)
        if look.desired.state is NodeState.OBSERVED:
            sentences.append(f"The daemon would {does}, but the node is only observed.")
        else:
            sentences.append(f"The daemon will {does} in its next cycle.")
    if held := [step for step in plan.held if step.key_id == key_id]:
        sentences.append(
            f"The guard holds a step back: to {_does(held)}. `reconciler release k{key_id}` lets it go."
        )
    for conflict in plan.conflicts:
        if conflict.key_id == key_id:
            verb = "added to" if conflict.desired else "removed from"
            sentences.append(
                f"It cannot be {verb} {conflict.inbound}: its UUID is that of {plain(conflict.name)}."
            )
    return sentences or ["Nothing is to be done."]


def _does(steps: Sequence[Step]) -> str:
    done: dict[StepKind, list[str]] = {}
    for step in steps:
        done.setdefault(step.kind, []).append(step.inbound)
    return " and ".join(
        _DOES[kind] + (f" on {', '.join(tags)}" if any(tags) else "") for kind, tags in done.items()
    )
