"""The command line. Each command is a module, imported when it is called, so that `--help` is quick."""

from reconciler.cli.program import main, program

__all__ = ["main", "program"]
