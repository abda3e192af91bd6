"""
The program: which commands there are, and what an error becomes.

Only this module is imported for `--help`. No error of ours ends in a
traceback, and each kind has one exit code.
"""

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import reconciler
from reconciler.errors import (
    ConfigError,
    NodeUnreachable,
    ReconcilerError,
    RightsMissing,
    SchemaMismatch,
    StoreUnavailable,
)

FAILURE = 1
DIFFERENCES = 2
USAGE = 64
UNAVAILABLE = 69
CONFIGURATION = 78
INTERRUPTED = 130

USUAL_CONFIG = Path("/etc/reconciler/reconciler.toml")

_SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "demo": ("demo", "Show the whole of it on real parts, on this machine."),
        "init": ("start", "Write a commented configuration file."),
        "check-config": ("start", "Tell everything that is wrong with the configuration."),
        "migrate": ("start", "Bring the database to the schema of this program."),
        "run": ("start", "Run the daemon in the foreground."),
    },
    "Look": {
        "status": ("status", "Show how every node is doing."),
        "plan": ("plan", "Show what the daemon would do now; changes nothing."),
        "compare": ("compare", "Compare, per node, what rows want, what is promised, what was listed."),
        "explain": ("explain", "Tell in words why a key is on its node, or not."),
        "history": ("history", "Tell what was granted, extended and given back."),
        "audit": ("audit", "Tell who changed what of the desired state, and from what to what."),
        "link": ("link", "Print the link that a customer opens the door with."),
    },
    "Say who has access": {
        "user": ("users", "Add, list and show users."),
        "grant": ("access", "Give a user a subscription with one key."),
        "extend": ("access", "Prolong a subscription."),
        "revoke": ("revoke", "End keys, subscriptions, or all of a user's."),
        "refund": ("refund", "End subscriptions now, and record what is given back."),
        "reopen": ("access", "Take the revocation of a subscription back."),
        "rotate": ("access", "Give a key another credential."),
    },
    "Say where": {
        "node": ("nodes", "Add, list, drain, empty and switch nodes."),
        "move": ("move", "Move a key to another node."),
        "place": ("place", "Put a key on a node, beside the one it is on."),
        "unplace": ("place", "Take a key off a node."),
    },
    "Give orders to the daemon": {
        "release": ("release", "Let the steps go that the guard holds."),
        "orphans": ("orphans", "Show, or remove, keys of ours that no row explains."),
    },
}
_COMMANDS = {name: place for commands in _SECTIONS.values() for name, place in commands.items()}


class Program(click.Group):
    """Loads a command when it is asked for, and turns errors into lines and exit codes."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module = importlib.import_module(f"reconciler.cli.{place[0]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for, without importing any."""
        for section, commands in _SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, about) for name, (_, about) in commands.items()])

    def main(self, args: Sequence[str] | None = None, *others: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's
        """Run a command and exit with its code."""
        given = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        sys.exit(self._run(given, *others, **extra))

    def _run(self, args: list[str], *others: Any, **extra: Any) -> int:  # noqa: ANN401 - click's
        try:
            code = super().main(args, *others, **extra)
        except click.UsageError as error:
            if error.ctx is not None:
                click.echo(error.ctx.get_usage(), err=True)
            return _told(error, [error.format_message()], USAGE, args)
        except click.ClickException as error:
            return _told(error, [error.format_message()], FAILURE, args)
        except ReconcilerError as error:
            lines = [str(fault) for fault in error.faults] if isinstance(error, ConfigError) else [str(error)]
            return _told(error, lines, exit_code(error), args)
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        return code if isinstance(code, int) else 0


def exit_code(error: ReconcilerError) -> int:
    """Return what the program exits with after `error`."""
    if isinstance(error, StoreUnavailable | NodeUnreachable):
        return UNAVAILABLE
    if isinstance(error, ConfigError | SchemaMismatch | RightsMissing):
        return CONFIGURATION
    return FAILURE


def _told(error: Exception, lines: Sequence[str], code: int, args: Sequence[str]) -> int:
    from reconciler.cli.words import plain  # noqa: PLC0415 - what masks secrets is not needed for --help
    from reconciler.logs import is_journal  # noqa: PLC0415 - likewise

    # Somebody may have pasted a link or a UUID where a name belongs.
    lines = [plain(" ".join(line.split())) for line in lines]
    if "--json" in args:
        said = {"kind": type(error).__name__, "messages": lines, "exit_code": code}
        click.echo(json.dumps({"error": said}, ensure_ascii=False, indent=2))
    priority = "<3>" if is_journal(sys.stderr) else ""
    for line in lines:
        click.echo(f"{priority}reconciler: {line}", err=True)
    return code


_EPILOG = """
Keys are written 12, k12 or k12@mark; subscriptions sub:5; users user:3, tg:4711 or their whole name.

Exit codes: 0 ok, 1 failure, 2 differences (plan, compare), 64 usage, 69 database or node out of reach,
78 configuration.
With --json, standard output holds one JSON document, {"error": …} when the command failed.
"""


@click.group(cls=Program, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help=f"The configuration. Else $RECONCILER_CONFIG, else {USUAL_CONFIG} if there is one, else defaults.",
)
@click.version_option(reconciler.__version__, prog_name="reconciler")
@click.pass_context
def program(ctx: click.Context, path: Path | None) -> None:
    """Keep the users of Xray nodes equal to what PostgreSQL says."""
    ctx.obj = path or _config_of_host()


def main() -> None:
    """Run the program; it exits by itself."""
    program.main(prog_name="reconciler")


def _config_of_host() -> Path | None:
    named = os.environ.get("RECONCILER_CONFIG")
    if named:
        return Path(named)
    return USUAL_CONFIG if USUAL_CONFIG.exists() else None
