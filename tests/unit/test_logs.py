"""What is told: no secret, no forged line, in the form that the reader understands."""

import contextlib
import io
import json
import logging
import os
import pty
import re
import socket
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import structlog

from reconciler import logs
from reconciler.model import Account, Credential

CANARY = "d2f1c0de-4b1d-4c0f-8e57-0123456789ab"
TOKEN = "bot7654321:AAHfiqksKZ8WmR2zSjiQ7_v4TMAKdiHm9T0"


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def told():
    """Configure, speak, and return what was written."""

    def told(speak, level="info", line_format="json"):
        stream = io.StringIO()
        logs.configure(level, line_format, stream, {})
        speak(structlog.get_logger())
        return stream.getvalue()

    return told


def failing(text: str) -> Callable[[Any], None]:
    return lambda log: log.error("it failed", exc_info=ValueError(text))


class Holder:
    def __str__(self) -> str:
        return f"holder of {CANARY}"


@pytest.mark.parametrize(
    "value",
    [
        CANARY,
        CANARY.upper(),
        CANARY.replace("-", ""),
        UUID(CANARY),
        UUID(CANARY).bytes,
        repr(UUID(CANARY).bytes),
        f"x{CANARY}y",
        Credential(UUID(CANARY).bytes),
        Account(Credential(UUID(CANARY).bytes)),
        {"deep": [{"deeper": (CANARY,)}]},
        {CANARY: 1},
        [[[[[[[[CANARY]]]]]]]],
        {CANARY},
        Holder(),
        ValueError(CANARY),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("line_format", ["json", "console"])
def test_no_credential_gets_through_whatever_carries_it(told, value, line_format):
    line = told(lambda log: log.info("a value", value=value), line_format=line_format)

    assert "a value" in line
    for form in (CANARY[:8], CANARY[-12:], repr(UUID(CANARY).bytes)[2:-1]):
        assert form not in line.lower()


@pytest.mark.parametrize("line_format", ["json", "console"])
def test_no_credential_gets_through_in_a_message_or_an_exception(told, line_format):
    assert CANARY not in told(lambda log: log.info(CANARY), line_format=line_format)
    line = told(failing(f"no {CANARY}"), line_format=line_format)
    assert "ValueError: no <uuid>" in line
    assert CANARY not in line


@pytest.mark.parametrize(
    ("text", "secret", "shown"),
    [
        (f"https://api.telegram.org/{TOKEN}/getMe", TOKEN, "https://api.telegram.org/<token>/getMe"),
        (f"token {TOKEN[3:]}", TOKEN[3:], "token <token>"),
        (f"vless://{CANARY}@host:443?x=1#n ok", CANARY, "<link> ok"),
        ("trojan://hunter2@host:443", "hunter2", "<link>"),
        ("at postgresql://u:hunter2@db/x?y=1 now", "hunter2", "at <dsn> now"),
        ("postgres://u:hunter2@db", "hunter2", "<dsn>"),
        ("host=db password=hunter2 user=u", "hunter2", "host=db <password> user=u"),
        ("host=db password = 'hun\\'ter2 x' user=u", "ter2", "host=db <password> user=u"),
        ('{"password": "hunter2"}', "hunter2", '{"<password>}'),
        ("PGPASSWORD=hunter2", "hunter2", "PG<password>"),
        ("via http://me:hunter2@proxy:80/", "hunter2", "via http<login>proxy:80/"),
    ],
)
def test_other_secrets_are_masked_and_the_rest_stays(text, secret, shown):
    masked = logs.mask(text)

    assert secret not in masked
    assert masked == shown


@pytest.mark.parametrize(
    "text",
    [
        "k12@shop",
        "127.0.0.1:9108",
        "2026-01-02T03:04:05Z",
        "password authentication failed",
        "0123456789abcdef" * 4,
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text):
    assert logs.mask(text) == text


def test_a_value_cannot_forge_a_line(told):
    evil = "x\n<3>{}\r\x1b[2J\x85\u2028\u202e\ud800end"

    for line_format in ("json", "console"):
        line = told(lambda log: log.info("got", value=evil), line_format=line_format)
        assert len(line.splitlines()) == 1
        assert line[:-1].isprintable()
        line.encode()

    assert json.loads(told(lambda log: log.info("got", value=evil)))["value"] == evil


def test_an_exception_cannot_forge_a_line_on_a_console(told):
    lines = told(failing("first\nforged message"), line_format="console").splitlines()

    assert [line for line in lines if line.startswith("forged")] == []
    assert any("    forged message" in line for line in lines)


def test_json_keeps_other_alphabets_readable(told):
    assert "Юлия" in told(lambda log: log.info("got", name="Юлия"))


def test_a_json_line_has_message_level_time_and_keys(told):
    line = json.loads(
        told(lambda log: log.warning("node is back", node="fra-1", failures=3, share=float("nan")))
    )

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "node is back",
        "level": "warning",
        "node": "fra-1",
        "failures": 3,
        "share": "nan",
    }


def test_a_line_below_the_level_is_not_told(told):
    assert told(lambda log: log.debug("small")) == ""
    assert told(lambda log: log.info("small"), level="warning") == ""
    assert told(lambda log: log.debug("small"), level="debug") != ""


def test_the_level_can_change_while_loggers_live(told):
    log = structlog.get_logger()

    assert told(lambda _: log.debug("small"), level="info") == ""
    assert told(lambda _: log.debug("small"), level="debug") != ""


def test_a_cycle_joins_its_lines(told):
    def speak(log):
        with logs.cycle_context(node="fra-1", cycle="c7"):
            log.info("inside")
        log.info("outside")

    inside, outside = map(json.loads, told(speak).splitlines())

    assert (inside["node"], inside["cycle"]) == ("fra-1", "c7")
    assert "cycle" not in outside


def test_libraries_go_the_same_way_from_warnings_up(told):
    def speak(_):
        library = logging.getLogger("grpc._channel")
        library.info("not told")
        library.warning("cannot reach %s", f"postgresql://u:{CANARY}@db")
        library.log(35, "between two levels")
        library.error("wrong %d arguments", "x")
        library.error("lost", exc_info=KeyError(CANARY))

    lines = [json.loads(line) for line in told(speak).splitlines()]

    said = [line["said"] for line in lines]
    assert said == ["cannot reach <dsn>", "between two levels", "wrong %d arguments", "lost"]
    assert {line["library"] for line in lines} == {"grpc._channel"}
    assert "KeyError: '<uuid>'" in lines[-1]["exception"]


@pytest.fixture
def journald(tmp_path):
    """A socket that takes entries as journald does, and a stream that leads to it."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as taking,
        (tmp_path / "stream").open("w+") as stream,
    ):
        address = str(tmp_path / "socket")
        taking.bind(address)
        taking.setblocking(False)
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        logs.configure("info", "auto", stream, environ, address)
        yield taking


def entry(journald) -> dict[str, str]:
    """Read one entry, by the format that journald documents for binary fields."""
    left, fields = journald.recv(1 << 20), {}
    while left:
        name, _, rest = left.partition(b"\n")
        length = int.from_bytes(rest[:8], "little")
        value, end, left = rest[8 : 8 + length], rest[8 + length : 9 + length], rest[9 + length :]
        assert end == b"\n"
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name), "journald drops a field of another name"
        fields[name.decode()] = value.decode()
    return fields


def test_under_journald_an_entry_is_a_sentence_with_fields(journald):
    with logs.cycle_context(node="fra-1", cycle="7"):
        structlog.get_logger().warning("node rejected", reason="no inbound vless-in", keys=3, tags=["a"])

    assert entry(journald) == {
        "EVENT": "node rejected",
        "NODE": "fra-1",
        "CYCLE": "7",
        "REASON": "no inbound vless-in",
        "KEYS": "3",
        "TAGS": '["a"]',
        "MESSAGE": 'node rejected: node=fra-1, reason=no inbound vless-in, keys=3, tags=["a"]',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "reconciler",
    }


def test_under_journald_every_level_has_its_priority(journald):
    log = structlog.get_logger()
    for level in ("info", "warning", "error", "critical"):
        getattr(log, level)("a message")

    assert [entry(journald)["PRIORITY"] for _ in range(4)] == ["6", "4", "3", "2"]


def test_under_journald_a_trace_is_one_entry_and_a_value_forges_nothing(journald):
    failing("first\nPRIORITY=7")(structlog.get_logger())
    structlog.get_logger().info("got", value=f"x\nPRIORITY=0\n{CANARY}")

    trace, got = entry(journald), entry(journald)
    assert trace["PRIORITY"] == "3"
    assert trace["MESSAGE"].startswith("it failed\n    ")
    assert "    ValueError: first" in trace["MESSAGE"]
    assert (got["PRIORITY"], got["VALUE"]) == ("6", r"x\nPRIORITY=0\n<uuid>")


def test_an_entry_too_long_for_a_datagram_is_cut_and_told(journald):
    structlog.get_logger().error("long", reason="x" * 1_000_000)

    assert 10_000 < len(entry(journald)["REASON"]) < 100_000


def test_what_a_full_journald_did_not_take_is_counted(journald):
    log = structlog.get_logger()
    for _ in range(5000):
        log.info("flood")

    taken = 0
    with contextlib.suppress(BlockingIOError):
        while entry(journald)["EVENT"] == "flood":
            taken += 1
    assert 0 < taken < 5000
    log.info("afterwards")
    lost = entry(journald)
    assert (lost["EVENT"], lost["LINES"]) == ("journald took no lines", str(5000 - taken))
    assert entry(journald)["EVENT"] == "afterwards"


def test_without_a_journald_nothing_breaks(journald, tmp_path):
    journald.close()
    (tmp_path / "socket").unlink()

    structlog.get_logger().error("to nobody")


def test_json_under_journald_has_a_priority_and_no_time(tmp_path):
    with (tmp_path / "journal").open("w+") as stream:
        status = os.fstat(stream.fileno())
        logs.configure("info", "json", stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        log = structlog.get_logger()
        log.info("a")
        log.warning("b")
        log.error("c")
        log.critical("d")
        stream.seek(0)
        lines = stream.read().splitlines()

    assert [line[:3] for line in lines] == ["<6>", "<4>", "<3>", "<2>"]
    assert json.loads(lines[0][3:]) == {"event": "a", "level": "info"}


def test_a_stream_that_was_redirected_away_from_journald_has_no_priority(tmp_path):
    with (tmp_path / "file").open("w+") as stream:
        logs.configure("info", "auto", stream, {"JOURNAL_STREAM": "1:2"})
        structlog.get_logger().info("a")
        stream.seek(0)

        assert "timestamp" in json.loads(stream.read())


def test_a_terminal_gets_colours():
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", 0) as screen, os.fdopen(theirs, "w") as terminal:
        logs.configure("info", "auto", terminal, {})
        structlog.get_logger().info("a message")
        shown = screen.read(1000).decode()

    assert "a message" in shown
    assert "\x1b[" in shown


def test_a_stream_that_breaks_stops_no_work():
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    logs.configure("info", "json", stream, {})

    structlog.get_logger().info("to nobody")
    with pytest.raises(BrokenPipeError):
        stream.close()
    structlog.get_logger().info("to a closed stream")


def test_the_first_failure_is_told_and_equal_ones_only_now_and_then():
    repeats = logs.Repeats(every_seconds=600)

    assert repeats.failed("fra-1", "refused", 0.0) == 0
    assert [repeats.failed("fra-1", "refused", now) for now in (1.0, 2.0, 599.0)] == [None, None, None]
    assert repeats.failed("fra-1", "refused", 600.0) == 3
    assert repeats.failed("fra-1", "refused", 601.0) is None
    assert repeats.recovered("fra-1") == 6


def test_a_recovery_is_told_once_and_only_after_a_failure():
    repeats = logs.Repeats()

    assert repeats.recovered("fra-1") is None
    repeats.failed("fra-1", "refused", 0.0)
    assert repeats.recovered("fra-1") == 1
    assert repeats.recovered("fra-1") is None
    assert repeats.failed("fra-1", "refused", 1.0) == 0


def test_a_new_text_is_told_at_once_and_one_that_differs_in_digits_is_not_new():
    repeats = logs.Repeats()

    assert repeats.failed("fra-1", "refused at port 40001", 0.0) == 0
    assert repeats.failed("fra-1", "refused at port 40002", 1.0) is None
    assert repeats.failed("fra-1", "no inbound", 2.0) == 1
    assert repeats.failed("fra-1", "refused at port 40003", 3.0) is None


def test_no_variety_of_texts_floods_the_log():
    repeats = logs.Repeats(every_seconds=600)

    told = [repeats.failed("fra-1", "x" * length, 0.0) for length in range(1000)]

    assert sum(count is not None for count in told) < 10


def test_a_line_does_not_tell_that_it_repeats_nothing(told):
    assert "repeats" not in told(lambda log: log.error("node unreachable", repeats=0))
    assert json.loads(told(lambda log: log.error("node unreachable", repeats=3)))["repeats"] == 3


def test_keys_fail_apart():
    repeats = logs.Repeats()

    assert repeats.failed("fra-1", "refused", 0.0) == 0
    assert repeats.failed("ams-1", "refused", 0.0) == 0
