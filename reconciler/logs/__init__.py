"""
What the program tells.

A message is a constant and everything else is a key, so that lines can be
counted and searched. Where journald listens an entry is a sentence with the
keys as fields; on a terminal a line is coloured; anywhere else it is JSON,
because then a program reads it. What libraries say goes the same way, from
warnings up.

Two fences stand before every line: nothing that looks like a secret gets
through, wherever in the line it stands, and nothing in a value can end the
line and begin a forged one.
"""

import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from io import TextIOWrapper
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from reconciler.logs import journal
from reconciler.logs.repeats import Repeats

__all__ = ["Repeats", "configure", "cycle_context", "is_journal", "mask"]

_SECRET = re.compile(
    r"""
      (?P<uuid>      [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}
                   | (?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f]) )
    | (?P<token>     bot\d+:[\w-]+ | (?<!\w)\d{6,}:[\w-]{30,} )
    | (?P<link>      (?:vless|vmess|trojan|ss)://\S+ )
    | (?P<dsn>       postgres(?:ql)?://\S+ )
    | (?P<password>  (?:pass(?:word|wd)|secret|token)["']?\s*[=:]\s*
                     (?: '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | [^\s'"]\S* ) )
    | (?P<bytes>     \bb(?: '(?:[^'\\]|\\.){8,}' | "(?:[^"\\]|\\.){8,}" ) )
    | (?P<login>     ://[^\s/@]+:[^\s@]+@ )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_DEEPEST = 6


def configure(
    level: str,
    line_format: str = "auto",
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    journal_socket: str = journal.SOCKET,
) -> None:
    """
    Set up logging for the whole program, again when called again.

    `level` and `line_format` are those of the configuration's section `log`.
    A line that `stream` or journald does not take is dropped: telling never stops work.
    """
    stream = stream or sys.stderr
    native = line_format == "auto" and is_journal(stream, environ)
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _first_of_its_kind,
            _mask_all,
            *([_entry] if native else _rendering(line_format, stream, environ)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_always(journal.Entries(journal_socket) if native else _Lines(stream)),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)


def cycle_context(*, node: str, cycle: str) -> AbstractContextManager[None]:
    """Put `node` and `cycle` on every line of the block, and of the tasks begun in it."""
    return structlog.contextvars.bound_contextvars(node=node, cycle=cycle)


def mask(text: str) -> str:
    """Return `text` with everything that looks like a secret replaced by what it looks like."""
    return _SECRET.sub(lambda found: f"<{found.lastgroup}>", text)


def _first_of_its_kind(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave out that a line repeats nothing."""
    return {key: value for key, value in event.items() if (key, value) != ("repeats", 0)}


def _mask_all(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _masked(value, _DEEPEST) for key, value in event.items()}


def _masked(value: object, depth: int) -> Any:  # noqa: ANN401, JSON has no closer type
    if isinstance(value, str):
        return mask(value)
    if value is None or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if depth and isinstance(value, Mapping):
        return {mask(str(key)): _masked(part, depth - 1) for key, part in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_masked(part, depth - 1) for part in value]
    return mask(str(value))


def _rendering(
    line_format: str, stream: TextIO, environ: Mapping[str, str]
) -> list[structlog.typing.Processor]:
    if line_format == "console" or (line_format == "auto" and stream.isatty()):
        colours = stream.isatty()
        return [_escape, _stamp, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=_PLAIN)]
    return [_prefixed_line] if is_journal(stream, environ) else [_stamp, _json_line]


_PLAIN = structlog.dev.plain_traceback
_stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)


def is_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether journald reads `stream`: systemd tells its device and inode; a redirection has others."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep a value on its line; the lines of an exception are indented, so that none passes for a message."""
    trace = event.pop("exception", None)
    escaped = {key: _escaped(value) for key, value in event.items()}
    if trace is not None:
        escaped["exception"] = "\n".join("    " + _escaped(line) for line in str(trace).split("\n"))
    return escaped


def _escaped(value: Any) -> Any:  # noqa: ANN401, whatever is no text stays as it is
    if isinstance(value, str):
        return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), value)
    return value


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    ordered = {"event": event.pop("event"), "level": event.pop("level"), **event}
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _prefixed_line(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """Put the priority before the line, where journald looks for it; it has a time of its own."""
    return f"<{journal.PRIORITIES[event['level']]}>{_json_line(logger, method, event)}"


def _entry(logger: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[EventDict], EventDict]:
    return (_escape(logger, method, event),), {}


def _always(logger: WrappedLogger) -> Callable[..., WrappedLogger]:
    return lambda *_: logger


class _Lines:
    """Writes a line at once; every level ends here."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return  # nobody is left to tell

    debug = info = warning = error = critical = msg


class _Bridge(logging.Handler):
    """Takes what libraries log through the same processors as our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        level = min(record.levelno // 10 * 10, logging.CRITICAL)  # libraries may have levels in between
        log = structlog.get_logger()
        log.log(level, "a library speaks", library=record.name, said=text, exc_info=record.exc_info)
