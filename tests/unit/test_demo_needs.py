"""What is missing on a host is told in one line, before anything is started."""

import sys
import tempfile

import pytest

from reconciler.demo import needs
from reconciler.demo.needs import check_host
from reconciler.errors import ReconcilerError


def test_a_host_that_has_everything_is_let_through():
    check_host()


def test_another_system_is_named(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(ReconcilerError, match="Linux only"):
        check_host()


@pytest.mark.parametrize(
    ("project", "source"),
    [
        (None, "reconciler"),
        ('[project]\nname = "reconciler"\n', "."),
        ('[project]\nname = "shop"\n', "reconciler"),
        ("[tool.other]\n", "reconciler"),
        ("no toml", "reconciler"),
    ],
    ids=["nothing", "our tree", "another project", "no project", "not readable"],
)
def test_a_missing_extra_is_named_with_the_command_for_where_we_stand(monkeypatch, tmp_path, project, source):
    monkeypatch.setattr(needs, "find_spec", lambda _: None)
    monkeypatch.chdir(tmp_path)
    if project is not None:
        (tmp_path / "pyproject.toml").write_text(project)

    with pytest.raises(ReconcilerError) as caught:
        check_host()

    assert f"pip install '{source}[demo]'" in str(caught.value)


def test_a_missing_program_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ReconcilerError, match=r"setpriv.*util-linux"):
        check_host()


def test_a_directory_too_long_for_a_socket_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 60)))

    with pytest.raises(ReconcilerError, match="TMPDIR"):
        check_host()


@pytest.mark.parametrize(("bound", "words"), [("MEMORY_MIB", "memory"), ("DISK_MIB", "room in")])
def test_too_little_is_told_with_both_numbers(monkeypatch, bound, words):
    monkeypatch.setattr(needs, bound, 2**40)

    with pytest.raises(ReconcilerError, match=rf"not enough {words}.* needs 1099511627776 MiB, \d+ MiB"):
        check_host()
