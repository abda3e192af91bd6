"""The commands that bring it to life: run, init, check-config, migrate."""

import asyncio
import os
import sys
from pathlib import Path

import click

from reconciler.cli.options import json_option
from reconciler.cli.program import FAILURE, exit_code
from reconciler.cli.screen import answer, print_json, say
from reconciler.cli.session import load_config
from reconciler.config import load, reference
from reconciler.db.migrate import migrate as migrated
from reconciler.db.pool import check_dsn
from reconciler.errors import ReconcilerError


@click.command()
@click.pass_obj
def run(path: Path | None) -> int:
    """
    Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    It starts while the database or nodes are down, and recovers by itself.
    """
    from reconciler.daemon.run import main  # noqa: PLC0415 - the daemon is much more than the other commands

    try:
        return main(path)
    except ReconcilerError as error:
        return exit_code(error)  # the log has told why
    except Exception:  # noqa: BLE001 - likewise, with the trace
        return FAILURE


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=Path("reconciler.toml"),
    show_default=True,
    help="Where to; - is standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite what is there.")
@json_option
def init(output: Path, *, force: bool, as_json: bool) -> None:
    """
    Write a commented configuration file, every key at its default.

    Only its owner may read it, because a DSN may be written into it.
    """
    if str(output) == "-":
        sys.stdout.write(reference())
        return
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        number = os.open(output, flags, 0o600)
    except FileExistsError:
        raise click.ClickException(f"file {str(output)!r} exists already; --force overwrites it") from None
    except OSError as error:
        raise click.FileError(str(output), error.strerror) from None
    with os.fdopen(number, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(reference())
    answer(f"wrote {output}", {"config": str(output)}, as_json=as_json)


@click.command()
@click.option(
    "--file-only", is_flag=True, help="Without credentials and environment, which only the daemon may have."
)
@json_option
@click.pass_obj
def check_config(path: Path | None, *, file_only: bool, as_json: bool) -> None:
    """
    Tell everything that is wrong with the configuration, all at once.

    The database is not asked. Exit code 78 when something is wrong.
    """
    config = load(path, {}, None, file_only=True) if file_only else load_config(path)
    check_dsn(config.database.dsn.get_secret_value())
    check_dsn(config.database.listen_dsn.get_secret_value())
    words = f"{path or 'the built-in defaults, with what the environment says'}: sound"
    answer(words, {"config": path and str(path), "sound": True}, as_json=as_json)


@click.command()
@click.option("--owner", metavar="MARK", help="Our mark on every node, chosen once: 1 to 32 of a-z, 0-9, -.")
@json_option
@click.pass_obj
def migrate(path: Path | None, *, owner: str | None, as_json: bool) -> None:
    """
    Bring the database to the schema of this program.

    Safe to repeat, and from several hosts at once. It needs a login that may
    create roles, or roles that a superuser has created.
    """
    config = load_config(path)
    steps: list[str] = []
    tell = steps.append if as_json else say
    done = asyncio.run(migrated(config.database.dsn.get_secret_value(), owner, tell))
    if as_json:
        print_json({"steps": steps, "owner": done.owner, "version": done.version, "applied": done.applied})
