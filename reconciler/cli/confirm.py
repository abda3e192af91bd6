"""Asking an operator to type how many things he is about to change."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

from reconciler.errors import Invalid, ReconcilerError


class NotConfirmed(ReconcilerError):
    """The operator did not type the number; nothing was written."""


def confirm_count(count: int, what: str, given: int | None) -> None:
    """
    Return when the operator has typed `count`, or gave it by --count.

    Raises Invalid when --count names another number, because then the set
    is not the one that he has looked at, and NotConfirmed.
    """
    if given is not None:
        if given != count:
            raise Invalid("count", given, f"the number of {what}, which is {count}; look again")
        return
    with _interruptible():
        click.echo(f"Type {count} to go on: ", nl=False, err=True)
        typed = sys.stdin.readline()
    if typed.strip() != str(count):
        raise NotConfirmed("not confirmed; nothing was changed (scripts give --count)")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a blocking read: asyncio's own handler would only note it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
