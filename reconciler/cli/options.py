"""What the options of several commands have in common."""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, TypeVar

import click

from reconciler.cli.words import parse_moment, parse_size
from reconciler.model import Inbound, Protocol

Command = TypeVar("Command", bound=Callable[..., object])


def json_option(command: Command) -> Command:
    """Give a command the option to print JSON."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def count_option(noun: str) -> Callable[[Command], Command]:
    """Give a command the option to be told the number that it would ask for."""
    return click.option(
        "--count", type=int, metavar="N", help=f"The number of {noun}, instead of typing it when asked."
    )


def wait_option(command: Command) -> Command:
    """Give a command the option to see its order carried out."""
    return click.option("--wait", is_flag=True, help="Wait until the daemon has carried the order out.")(
        command
    )


def grace_option(command: Command) -> Command:
    """Give a command the option to say how long a node keeps a key that another one has by now."""
    words = "How long a node keeps a key that another one has by now; move.grace_seconds unless given."
    return click.option("--grace", type=int, metavar="SECONDS", help=words)(command)


def size(text: str) -> int:
    """Read `100GB`, `+100GB` or `1.5TiB` as bytes."""
    try:
        return parse_size(text.removeprefix("+"))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


class Traffic(NamedTuple):
    """A number of bytes; `more` when it was written with a plus."""

    size_bytes: int
    more: bool


def traffic(text: str) -> Traffic:
    """Read `100GB` or `+100GB`."""
    return Traffic(size(text), more=text.startswith("+"))


def moment(text: str) -> datetime:
    """Read ISO 8601 with its zone."""
    try:
        return parse_moment(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


def inbound(text: str) -> Inbound:
    """Read `TAG:PROTOCOL[:FLOW]` from the right: a tag may hold colons, protocols and flows have none."""
    tag, _, last = text.rpartition(":")
    before, _, protocol = tag.rpartition(":")
    if last in set(Protocol):
        return Inbound(tag, Protocol(last))
    if protocol in set(Protocol):
        return Inbound(before, Protocol(protocol), last)
    raise click.BadParameter(f"{text!r}: TAG:PROTOCOL[:FLOW], the protocol one of {', '.join(Protocol)}")
