"""The program around the commands: what it loads, and how it refuses."""

import json
import subprocess
import sys

import click
import pytest

from reconciler.cli import program
from reconciler.cli.program import exit_code
from reconciler.errors import (
    ConfigError,
    DesiredError,
    Fault,
    NodeRejected,
    NodeUnreachable,
    RightsMissing,
    SchemaMismatch,
    StoreError,
    StoreUnavailable,
)
from tests.parts_cli import invoke

HEAVY = ("psycopg", "grpc", "pydantic", "rich", "structlog")


def test_help_loads_nothing_heavy():
    script = f"""
import sys
from reconciler.cli import program
try:
    program.main(["--help"], prog_name="reconciler")
except SystemExit as end:
    assert end.code == 0
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert "explain" in done.stdout


def every_command() -> list[tuple[str, ...]]:
    context = click.Context(program)
    found: list[tuple[str, ...]] = []
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        found += [(name,), *((name, inner) for inner in getattr(command, "commands", {}))]
    return found


def test_every_command_can_be_loaded_and_tells_what_it_does():
    listed = invoke("--help").out

    for command in every_command():
        said = invoke(*command, "--help")
        assert (said.code, said.err) == (0, ""), command
        assert f"  {command[0]} " in listed


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("plan", "--nonsense"), ("grant",), ("grant", "1", "--until", "2027-01-31"), ("revoke",)],
)
def test_wrong_usage_is_64_and_never_2(words):
    said = invoke(*words)

    assert said.code == 64
    assert said.err.splitlines()[-1].startswith("reconciler: ")
    assert said.out == ""


@pytest.mark.parametrize(
    "option",
    [
        ("--inbound", "vless-in"),
        ("--inbound", "in:socks"),
        ("--capacity", "many", "--inbound", "in:vless"),
        ("--state", "asleep", "--inbound", "in:vless"),
        (),
    ],
)
def test_a_node_that_cannot_be_read_is_wrong_usage(option):
    assert invoke("node", "add", "fra-1", "--api", "h:1", *option).code == 64


@pytest.mark.parametrize(
    "option", [("--traffic", "100"), ("--until", "2027-01-31T12:00"), ("--days", "x"), ("--spread", "two")]
)
def test_a_grant_that_cannot_be_read_is_wrong_usage(option):
    assert invoke("grant", "1", *option).code == 64


def test_an_error_is_a_json_document_when_json_was_asked_for():
    said = invoke("plan", "--json", "--nonsense")

    assert json.loads(said.out)["error"]["exit_code"] == 64
    assert "nonsense" in said.err


def test_a_link_in_the_wrong_place_is_not_shown_again():
    opens = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

    said = invoke("plan", "--json", "--nonsense", f"vless://{opens}@host:443")
    other = invoke("user", "list", "--bucket", opens)

    for text in (said.out, said.err, other.err):
        assert "6ba7b810" not in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreUnavailable("x"), 69),
        (NodeUnreachable("n", "x"), 69),
        (ConfigError([Fault("a", "b", "c")]), 78),
        (SchemaMismatch(1, 2), 78),
        (RightsMissing("x"), 78),
        (StoreError("x"), 1),
        (NodeRejected("n", "x"), 1),
        (DesiredError("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_code(error) == code
