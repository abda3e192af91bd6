"""`plan`: what the daemon would do now."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from rich.text import Text

from reconciler.cli.looking import Seen, Spending, chosen, look_at_all, spendings
from reconciler.cli.options import json_option
from reconciler.cli.program import DIFFERENCES, FAILURE, UNAVAILABLE
from reconciler.cli.screen import print_json, progress, say, table
from reconciler.cli.session import asynchronous, open_session
from reconciler.cli.words import plain, plural
from reconciler.config import Config
from reconciler.errors import NodeRejected, NodeUnreachable
from reconciler.loop.look import Look
from reconciler.model import NodeState, Owner
from reconciler.plan.steps import Step

SHOWN = 40
"""Steps of a node that are printed without --all."""


@click.command()
@click.argument("node", required=False)
@click.option("--all", "everything", is_flag=True, help=f"Print more than {SHOWN} steps of a node.")
@json_option
@click.pass_obj
@asynchronous
async def plan(path: Path | None, *, node: str | None, everything: bool, as_json: bool) -> int:
    """
    Show what the daemon would do now on NODE, or on all nodes that are not disabled.

    Nodes are asked and judged by the daemon's own code; nothing is changed.

    Exit codes: 0 nothing to do, 2 differences, 69 a node does not answer, 1
    a node or an inbound refuses. The other nodes are shown all the same.
    """
    async with open_session(path) as session:
        nodes = await chosen(session, node)
        with progress("asking nodes", len(nodes)) as bar:
            seen = await look_at_all(session, nodes, bar.advance)
        owner = await session.owner()
    if as_json:
        print_json({"nodes": [_document(one, owner, session.config) for one in seen]})
    else:
        for one in seen:
            _print(one, session.config, shown=None if everything else SHOWN)
        if not seen:
            say("there is no node that is not disabled: add one by `reconciler node add`")
    return _exit_code(seen)


def differs(look: Look) -> bool:
    """Whether something is to be done, or should be and cannot."""
    plan = look.plan
    return bool(plan.steps or plan.held or any(conflict.desired for conflict in plan.conflicts))


def _exit_code(seen: Iterable[Seen]) -> int:
    codes = set()
    for one in seen:
        if one.look is None:
            codes.add(UNAVAILABLE if isinstance(one.error, NodeUnreachable) else FAILURE)
        elif one.look.plan.unlisted:
            codes.add(FAILURE)
        elif differs(one.look):
            codes.add(DIFFERENCES)
    return next((code for code in (UNAVAILABLE, FAILURE, DIFFERENCES) if code in codes), 0)


def _document(seen: Seen, owner: Owner, config: Config) -> dict[str, object]:
    document: dict[str, object] = {"node": seen.node.name, "state": seen.node.state}
    look = seen.look
    if look is None:
        return {**document, "error": seen.error and plain(seen.error.detail)}
    plan = look.plan
    return {
        **document,
        "state": look.desired.state,
        "steps": [_step_document(step, owner) for step in plan.steps],
        "held": [_step_document(step, owner) for step in plan.held],
        "budgets": [
            {"budget": one.breach, "asked": one.asked, "spent": one.spent, "limit": one.limit}
            for one in spendings(look, config)
        ],
        "conflicts": [
            {
                "inbound": conflict.inbound,
                "key": conflict.key_id,
                "with": plain(conflict.name),
                "desired": conflict.desired,
            }
            for conflict in plan.conflicts
        ],
        "orphans": [owner.name(key_id) for key_id in sorted(plan.orphans)],
        "foreign": plan.foreign,
        "refused": {tag: plain(look.observation.refusals.get(tag, "not listed")) for tag in plan.unlisted},
    }


def _step_document(step: Step, owner: Owner) -> dict[str, object]:
    return {
        "phase": step.phase.name.lower(),
        "kind": step.kind,
        "key": step.key_id,
        "name": owner.name(step.key_id),
        "inbound": step.inbound or None,
        "cause": step.cause,
        "breach": step.breach,
        "drift": step.drift,
    }


def _print(seen: Seen, config: Config, *, shown: int | None) -> None:
    look = seen.look
    if look is None:
        refuses = isinstance(seen.error, NodeRejected) and seen.node.state is not NodeState.DISABLED
        head = f"{seen.node.name}: rejected" if refuses else seen.node.name
        say(f"{head}: {plain(seen.error.detail if seen.error else '')}", "bold red")
        return
    say(f"{seen.node.name}: {_summary(look)}", "bold")
    if look.desired.state is NodeState.OBSERVED and look.plan.steps:
        say(f"  only observed: nothing of this happens before `reconciler node activate {seen.node.name}`")
    plan = look.plan
    _print_steps(plan.steps, shown)
    if plan.held:
        say("  held back:", "yellow")
        _print_steps(plan.held, shown)
    for spending in spendings(look, config):
        if spending.exceeded:
            say(f"  {_held_words(spending, seen.node.name)}", "yellow")
    for tag in plan.unlisted:
        say(f"  inbound {tag}: {plain(look.observation.refusals.get(tag, 'not listed'))}", "red")
    _print_conflicts(look)


def _held_words(spending: Spending, node: str) -> str:
    return f"held whole: {spending}; see `reconciler release {node}`"


def _print_conflicts(look: Look) -> None:
    conflicts = look.plan.conflicts
    for conflict in conflicts[:SHOWN]:
        stays = "cannot be added" if conflict.desired else "cannot be removed"
        say(
            f"  conflict on {conflict.inbound}: key {conflict.key_id} {stays}, its UUID is that of"
            f" {plain(conflict.name)}",
            "yellow",
        )
    if len(conflicts) > SHOWN:
        say(f"  and {plural(len(conflicts) - SHOWN, 'conflict')} more (--json has them)", "yellow")


def _summary(look: Look) -> str:
    plan = look.plan
    refused = bool(plan.unlisted or any(conflict.desired for conflict in plan.conflicts))
    idle = not (refused or plan.steps or plan.held)
    words = [
        "rejected" if refused else "",
        plural(len(plan.steps), "step") if plan.steps else "",
        f"{len(plan.held):,} held" if plan.held else "",
        "nothing to do" if idle else "",
        plural(len(plan.conflicts), "conflict") if plan.conflicts else "",
        plural(len(plan.orphans), "orphan") if plan.orphans else "",
    ]
    return f"{', '.join(word for word in words if word)} ({plan.foreign:,} foreign, {look.desired.state})"


def _print_steps(steps: Sequence[Step], shown: int | None) -> None:
    if not steps:
        return
    table(
        ("  step", ">key", "inbound", "cause", "note"),
        (
            (Text(f"  {step.kind}"), step.key_id, step.inbound or "-", step.cause, _note(step))
            for step in steps[:shown]
        ),
    )
    if shown is not None and len(steps) > shown:
        say(f"  and {plural(len(steps) - shown, 'step')} more (--all prints them)")


def _note(step: Step) -> str:
    words = (str(step.breach).replace("_", " ") if step.breach else "", "drift" if step.drift else "")
    return ", ".join(word for word in words if word)
