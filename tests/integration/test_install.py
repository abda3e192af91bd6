"""`make install` into a folder, as a packager does it, and what the shipped units have in common."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.parts_machine import ROOT, wheels

UNITS = ROOT / "systemd"
NETWORK = {"RestrictAddressFamilies", "PrivateNetwork"}


def make(*words: str) -> str:
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """Where to, as make is told it: a root, and a prefix that systemd does not look into by itself."""
    return [f"DESTDIR={tmp_path}", "PREFIX=/opt/reconciler", "SYSTEMD=254"]


def test_it_can_be_put_below_another_root_and_taken_away_again(tmp_path: Path, place: list[str]):
    config = tmp_path / "etc/reconciler/reconciler.toml"
    reference = (ROOT / "config/reconciler.toml").read_text()
    with wheels():
        make("install", *place)

    unit = (tmp_path / "etc/systemd/system/reconciler.service").read_text()
    assert "ExecStart=/opt/reconciler/bin/reconciler run\n" in unit
    assert "/usr/local" not in unit
    assert (tmp_path / "etc/systemd/system/reconciler.service.d/backoff.conf").is_file()
    program = tmp_path / "opt/reconciler/lib/reconciler/bin/python"
    said = subprocess.run([program, "-I", "-m", "reconciler", "--version"], capture_output=True, check=True)
    assert said.stdout.startswith(b"reconciler, version")
    launcher = (tmp_path / "opt/reconciler/bin/reconciler").read_text()
    assert launcher.startswith("#!/opt/reconciler/lib/reconciler/bin/python -I\n")
    assert config.read_text() == reference
    traces = subprocess.run(
        ["grep", "-rlI", str(tmp_path), tmp_path], capture_output=True, text=True, check=False
    )
    assert [name for name in traces.stdout.split() if not name.endswith("pyvenv.cfg")] == []

    make("uninstall", *place)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["etc/reconciler/reconciler.toml"]
    make("uninstall", "PURGE=1", *place)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_edited_configuration_is_kept_and_an_untouched_one_follows_the_reference(
    tmp_path: Path, place: list[str]
):
    config = tmp_path / "etc/reconciler/reconciler.toml"
    reference = (ROOT / "config/reconciler.toml").read_text()
    document = tmp_path / "opt/reconciler/share/doc/reconciler/reconciler.toml"
    for file in (config, document):
        file.parent.mkdir(parents=True)
        file.write_text("# as an older version brought it\n")

    make("install-files", *place)
    assert config.read_text() == reference
    config.write_text("# mine\n" + reference)
    assert "kept /etc/reconciler/reconciler.toml" in make("install-files", *place)
    assert config.read_text() == "# mine\n" + reference
    assert document.read_text() == reference


def settings(name: str) -> dict[str, list[str]]:
    """What a unit forbids itself: the block that begins with NoNewPrivileges."""
    block = (UNITS / name).read_text().partition("NoNewPrivileges=")
    found: dict[str, list[str]] = {}
    for key, value in re.findall(
        r"^(\w+)=(.*)$", block[1] + block[2].partition("[Install]")[0], re.MULTILINE
    ):
        found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", ["reconciler-migrate.service", "reconciler-http.service"])
def test_all_units_forbid_themselves_the_same(name: str):
    daemon, other = settings("reconciler.service"), settings(name)

    assert len(daemon) > 30
    assert {key for key in daemon.keys() | other.keys() if daemon.get(key) != other.get(key)} <= NETWORK
