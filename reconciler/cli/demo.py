"""The demonstration."""

import importlib

import click


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running, and print the addresses to explore.")
def demo(*, keep: bool) -> int:
    """Show the whole of it on real parts: PostgreSQL, three Xray nodes, the daemon and 1,000 keys."""
    # Called by its name, and after the check, because all the rest of it needs an extra.
    importlib.import_module("reconciler.demo.needs").check_host()
    return int(importlib.import_module("reconciler.demo.show").main(keep))
