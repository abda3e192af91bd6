"""What a newcomer copies works: the example node, and what the README says of commands, keys and messages."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from reconciler.cli import program
from reconciler.config import Config
from reconciler.db.migrate import GROUP_ROLES
from reconciler.demo.xray import XrayProcess, free_port
from reconciler.model import Outcome
from reconciler.node.xray import XrayNode
from reconciler.status.metrics import Metrics
from tests.parts_postgres import Database
from tests.world import VLESS, make_world

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "config" / "alerts.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "config" / "node.example.json").read_text(encoding="utf-8")
SOCKET = "/run/xray/api.sock"
SOCKET_WITH_MODE = f"{SOCKET},0660"
LOOPBACK = "127.0.0.1:10085"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BEFORE_A_COMMAND = re.compile(r"sudo|-u|postgres|env|exec|[A-Z_]+=.*", re.DOTALL)
_FILE_ENDINGS = (".json", ".md", ".sock", ".toml", ".conf", ".service", "reconciler.listen_dsn")


def blocks(language: str) -> list[str]:
    return [text for kind, text in _FENCE.findall(README) if kind == language]


def spans() -> list[str]:
    """What is quoted in the text of the README and of the alerts' runbook."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", README) + RUNBOOK)


def quoted_commands() -> Iterator[list[str]]:
    """Every call of our program in the shell blocks, without its name."""
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and _BEFORE_A_COMMAND.fullmatch(words[0]):
                words.pop(0)
            if words and Path(words[0]).name == "reconciler":
                yield words[1:]


def parse(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """Read `words` as click would, options, arguments and their types; run nothing."""
    if not isinstance(command, click.Group):
        command.make_context(name, list(words), parent=parent)
        return
    context = command.make_context(name, list(words), parent=parent)
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    inner_name, inner, inner_words = command.resolve_command(context, rest)
    assert inner is not None
    parse(inner, inner_name or "", inner_words, context)


def config_keys() -> set[str]:
    sections = Config.model_fields
    return {f"{name}.{key}" for name, field in sections.items() for key in type(field.default).model_fields}


@pytest.mark.parametrize("transport", ["socket", "loopback"])
async def test_the_example_node_is_reconcilable(tmp_path: Path, database: Database, transport: str):
    config: dict[str, Any] = json.loads(EXAMPLE)
    assert config["api"]["listen"] == SOCKET_WITH_MODE
    api = f"unix:{tmp_path}/api.sock" if transport == "socket" else f"127.0.0.1:{free_port()}"
    config["api"]["listen"] = f"{tmp_path}/api.sock,0660" if transport == "socket" else api
    config["inbounds"][0]["port"] = free_port()

    async with (
        XrayProcess(tmp_path, name="example", api=api, config=config),
        make_world(database, XrayNode("n1", api), VLESS, api=api) as world,
    ):
        kept, revoked = await world.keys(2)

        assert (await world.cycle()).outcome is Outcome.CHANGED
        assert await world.names() == {f"k{kept}@test", f"k{revoked}@test"}
        assert (await world.cycle()).outcome is Outcome.CONVERGED
        await world.revoke([revoked])
        assert (await world.cycle()).outcome is Outcome.CHANGED
        assert await world.names() == {f"k{kept}@test"}


def test_the_example_node_brings_no_user_of_its_own_and_counts_traffic():
    config = json.loads(EXAMPLE)

    assert [inbound["settings"]["clients"] for inbound in config["inbounds"]] == [[]]
    counted = config["policy"]["levels"]["0"]
    assert config["stats"] == {}
    assert counted["statsUserUplink"]
    assert counted["statsUserDownlink"]


def test_the_readme_names_the_addresses_of_the_example():
    assert f'"{SOCKET_WITH_MODE}"' in README
    assert f"unix:{SOCKET}" in README
    assert f'"{LOOPBACK}"' in README


def test_every_command_in_the_readme_can_be_parsed():
    commands = list(quoted_commands())

    assert len(commands) >= 20
    for words in commands:
        try:
            parse(program, "reconciler", words)
        except click.UsageError as error:
            raise AssertionError(f"reconciler {shlex.join(words)}: {error.format_message()}") from error


def test_every_command_that_the_readme_speaks_of_exists():
    spoken = [span.split()[1:] for span in spans() if span.startswith("reconciler ")]

    assert spoken
    for words in spoken:
        group: click.Command | None = program
        while isinstance(group, click.Group) and words:
            name = words.pop(0)
            group = group.get_command(click.Context(group), name)
            assert group is not None, name


def test_every_key_of_the_configuration_in_the_readme_exists():
    named = {span for span in spans() if re.fullmatch(r"[a-z]+\.[a-z_]+", span)}
    keys = {span for span in named if not span.endswith(_FILE_ENDINGS)}

    assert keys
    assert keys <= config_keys(), keys - config_keys()
    for block in blocks("toml"):
        Config.model_validate(tomllib.loads(block))


def test_the_readme_lists_exactly_the_metrics_that_there_are():
    page = "".join(Metrics().slices())
    exported = set(re.findall(r"^# TYPE (reconciler_\w+) ", page, re.MULTILINE))
    roles = set(GROUP_ROLES)

    named = {name for span in spans() for name in re.findall(r"^reconciler_\w+", span)}

    assert named - roles == exported


def test_every_log_line_in_readme_and_runbook_is_one_that_the_program_writes():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "reconciler").rglob("*.py"))
    lines = [json.loads(line) for block in blocks("json") for line in block.splitlines() if '"event"' in line]
    table = README.partition("### At 3 a.m.")[2].partition("\n#")[0]
    told = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    looked_for = re.findall(r"log line\s`([^`]+)`", RUNBOOK)

    assert lines
    assert told
    assert looked_for
    for message in {line["event"] for line in lines} | {*told, *looked_for}:
        assert f'"{message}"' in source, message


def test_every_file_that_the_readme_points_at_exists():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]

    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_make_target_in_the_readme_exists():
    targets = set(re.findall(r"\bmake ([a-z]+)", " ".join([*spans(), *blocks("sh")])))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
