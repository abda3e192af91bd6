"""The fleet page as it goes out: what it says, what it lets nobody do, and what it costs."""

import asyncio
import base64
import gzip
import hashlib
import re
import time
from html.parser import HTMLParser

import pytest

from reconciler.model import NodeState, Outcome
from reconciler.status.board import Sight
from tests.fleets import COUNTS, NOW, row, sight, taken_on
from tests.parts_http import HttpPort
from tests.texts import HOSTILE

DASH = "\N{EN DASH}"
SECRET = "b0a3c6de-0d4c-4a5b-9b57-6b1d1b6f3c11"


class Elements(HTMLParser):
    """Which elements a page has, with which attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] != "style":
            self.texts.append(data)


@pytest.fixture
async def port(page: HttpPort) -> HttpPort:
    page.now = NOW
    page.health.database_read(NOW - 0.5)
    return page


async def shown(port: HttpPort) -> Elements:
    port.now += 1  # what was made before is too old
    status, _, html = await port.ask("/")
    assert status == 200
    return Elements(html)


async def test_a_fleet_is_told_at_a_glance(port: HttpPort):
    seen = Sight(Outcome.HELD, None, COUNTS, NOW, NOW - 400, 0.0123, 0.00043)
    port.board.rows_read(
        [row("fra1"), row("ams1", seen=sight(Outcome.UNREACHABLE, error="Connection refused")), row("hel1")],
        NOW - 4,
    )
    taken_on(port.board, "hel1", seen)
    port.health.note("steps held", "on hel1")
    port.health.note("changes", "listened for", ok=True)

    status, headers, html = await port.ask("/")

    text = Elements(html).text
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "1 of 3 nodes is as desired" in text
    assert "1 unreachable 1 held 1 converged" in text
    assert "steps held on hel1 running yes database read 0.5 s ago" in text
    assert "changes listened for" in text
    assert (
        f"ams1 unreachable active 812 / 812 2,000 0 0 2 3 s ago 3 s ago {DASH} {DASH} vm-1:812:8f645a37"
        in text
    )
    assert "Connection refused" in text
    assert "hel1 held active 812 / 812 2,000 0 0 2 400 s ago" not in text
    assert "hel1 held active 812 / 812 2,000 0 0 2 7 min ago 0 s ago 12 ms 0.4 ms this one" in text
    assert "2027-01-15 08:00:00 UTC" in text
    assert "4 s ago" in text


async def test_a_fleet_that_is_well_is_told_in_one_line(port: HttpPort):
    port.board.rows_read([row(f"n{number}") for number in range(3)], NOW)
    assert "All 3 nodes are as desired" in (await shown(port)).text

    port.board.rows_read([row("n1")], NOW)
    assert "The node is as desired" in (await shown(port)).text

    port.board.rows_read([row("n1", state=NodeState.DISABLED)], NOW)
    assert "Every node is disabled" in (await shown(port)).text

    port.board.rows_read([], NOW)
    assert "No node is known reconciler node add makes one." in (await shown(port)).text


async def test_it_is_there_without_a_database_and_says_so(page: HttpPort):
    page.health.note("database out of reach", "connection refused")

    text = (await shown(page)).text

    assert "No node is known The database has not been read yet." in text
    assert "database not read yet" in text
    assert "database out of reach connection refused" in text


async def test_the_end_is_told(port: HttpPort):
    port.health.stopping()

    assert "running stopping" in (await shown(port)).text


async def test_a_loop_that_is_stuck_is_told(port: HttpPort):
    port.health.expect("fra1", 10, NOW)
    port.health.expect("ams1", 1000, NOW)
    port.now += 59

    text = (await shown(port)).text

    assert "fra1 turned 60.0 s ago, limit 10 s" in text
    assert "ams1" not in text


async def test_what_others_wrote_is_text_and_nothing_else(port: HttpPort):
    harmless = await shown(port)
    for words in HOSTILE:
        port.board.rows_read(
            [row(words, pool=words, holder=words, seen=sight(Outcome.REJECTED, error=words))], NOW
        )
        port.health.note(words, words)

        page = await shown(port)

        kinds = {tag for tag, _ in page.found}
        assert not kinds & {"script", "img", "svg", "iframe", "object", "form"}
        assert len([tag for tag, _ in page.found if tag == "style"]) == 1
        assert {name for _, given in page.found for name in given} <= {
            "lang", "charset", "name", "content", "http-equiv", "rel", "href", "class", "scope", "data-of",
            "colspan", "title",
        }  # fmt: skip
        assert {given["href"] for _, given in page.found if "href" in given} == {
            given["href"] for _, given in harmless.found if "href" in given
        }
        assert page.text.count(words) >= 5 or not words.isprintable()
        assert "\x1b" not in page.text
        assert "\x00" not in page.text
        port.health.clear(words)


async def test_what_could_turn_a_line_around_is_not_shown(port: HttpPort):
    port.board.rows_read([row("n1", holder="x\u202ey", seen=sight(error="a\u202eb\nc\x1b[31m"))], NOW)

    text = (await shown(port)).text

    assert "a\ufffdb\ufffdc\ufffd[31m" in text
    assert "\u202e" not in text


async def test_a_long_error_does_not_hide_the_other_nodes(port: HttpPort):
    port.board.rows_read([row("n1", seen=sight(Outcome.FAILED, error="no " * 5000))], NOW)

    text = (await shown(port)).text

    assert "no no no" in text
    assert "…" in text
    assert len(text) < 2000


async def test_credentials_are_masked(port: HttpPort):
    port.board.rows_read(
        [row("n1", holder=SECRET, seen=sight(Outcome.REJECTED, error=f"who is {SECRET}"))], NOW
    )
    port.health.note("something", f"about {SECRET}")

    _, _, html = await port.ask("/")

    assert "&lt;uuid&gt;" in html
    assert SECRET not in html


async def test_the_policy_lets_nothing_run_and_nobody_frame(port: HttpPort):
    _, headers, html = await port.ask("/")

    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["style-src"] == f"'sha256-{digest}'"
    assert "script-src" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


async def test_it_renews_itself_without_a_script(port: HttpPort):
    page = await shown(port)

    assert ("meta", {"http-equiv": "refresh", "content": "15"}) in page.found


async def test_head_is_answered_and_nothing_is_taken(port: HttpPort):
    assert (await port.ask("/", "HEAD"))[::2] == (200, "")
    for method in ("POST", "PUT", "DELETE"):
        assert (await port.ask("/", method))[0] == 405


async def test_it_is_packed_for_those_who_can_unpack_it(port: HttpPort):
    port.board.rows_read([row(f"n{number}") for number in range(1000)], NOW)

    packed = await port.say(b"GET / HTTP/1.0\r\nAccept-Encoding: br, gzip\r\n\r\n")
    plain = await port.say(b"GET / HTTP/1.0\r\n\r\n")

    head, _, body = packed.partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert gzip.decompress(body) == plain.partition(b"\r\n\r\n")[2]
    assert len(body) < len(plain) / 10


async def test_it_is_made_once_a_second_however_many_ask(port: HttpPort, monkeypatch):
    made = []
    render = port.fleet._render  # noqa: SLF001 - counted, and what nobody can see from outside

    async def counting():
        made.append(port.now)
        return await render()

    monkeypatch.setattr(port.fleet, "_render", counting)
    await asyncio.gather(*(port.ask("/") for _ in range(20)))
    assert len(made) == 1

    port.now += 1
    await port.ask("/")

    assert len(made) == 2


async def test_a_thousand_nodes_are_made_in_pieces(port: HttpPort):
    port.board.rows_read([row(f"n{number}", seen=sight(error="x" * 50)) for number in range(1000)], NOW)
    await port.fleet.rendered()
    port.now += 60
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(turn())
    began = time.process_time()
    await port.fleet.rendered()
    took = time.process_time() - began
    others.cancel()

    assert turns > 50, "what else is to be done had its turn in between"
    assert took < 2, "a second's work, thirty times over"
