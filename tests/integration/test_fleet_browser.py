"""The fleet page in a real browser: what a person sees, on a desk and on a phone, and what runs there."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.model import NodeState, Outcome
from reconciler.status import fleet_page
from reconciler.status.board import Board, Sight
from reconciler.status.recorder import Counts
from tests.browser import Browser, browsing
from tests.daemons import until
from tests.fleets import NOW, row, sight, taken_on
from tests.parts_http import HttpPort
from tests.texts import HOSTILE

WIDTHS = (320, 360, 412, 768, 1024, 1216, 1217, 1280, 1920)

# Elements that reach beyond the window to the right, or whose content reaches beyond them.
BEYOND = """
[...document.querySelectorAll('body *')]
  .filter(each => each.getClientRects().length && (each.getBoundingClientRect().right > innerWidth + .5
    || (each.clientWidth && each.scrollWidth > each.clientWidth + 1)))
  .map(each => each.outerHTML.slice(0, 200))
"""

# The least contrast between a text and what is behind it, and where, by the formula of WCAG.
CONTRAST = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0);
  const behind = each => {
    for (; each; each = each.parentElement) {
      const [r, g, b, a = 1] = parts(getComputedStyle(each).backgroundColor);
      if (a) return [r, g, b];
    }
  };
  const told = [...document.querySelectorAll('body *')]
    .filter(each => each.getClientRects().length
      && [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return told.map(each => {
    const pair = [light(parts(getComputedStyle(each).color)), light(behind(each))].sort((a, b) => b - a);
    return [(pair[0] + .05) / (pair[1] + .05), each.outerHTML.slice(0, 100)];
  }).sort((a, b) => a[0] - b[0])[0];
})()
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browsing(tmp_path) as browser:
        yield browser


def fill(board: Board, *hostile: str) -> None:
    """Every outcome and state there is, figures of every length, and what hostile people would write."""
    rows = [
        row(f"{outcome}-{state}", state=state, seen=sight(outcome, error="refused" if outcome else None))
        for outcome in (*Outcome, None)
        for state in NodeState
    ]
    huge = Counts(active=1_000_000, desired=999_999, foreign=12_345, orphans=54_321, held=99_999)
    rows += [
        row(f"n-{'x' * 61}", pool="y" * 63, holder="z" * 200, seen=sight(Outcome.HELD, counts=huge)),
        row("long", seen=sight(Outcome.FAILED, error="a" * 3000, tried_at=NOW - 1e9, converged_at=NOW - 1e9)),
        row("words", seen=sight(Outcome.FAILED, error="many words " * 300)),
        row("empty", pool="", holder=None, capacity=None, seen=Sight()),
    ]
    rows += [
        row(text, pool=text, holder=text, seen=sight(Outcome.REJECTED, error=text, tried_at=NOW - 1))
        for text in hostile
    ]
    board.rows_read(rows, NOW)
    ours = Sight(Outcome.HELD, "refused", huge, NOW - 1e6, NOW - 1e6, 12_345.0, 0.00001)
    taken_on(board, f"n-{'x' * 61}", ours)


async def test_what_hostile_people_wrote_is_inert(page: HttpPort, browser: Browser):
    page.now = NOW
    fill(page.board, *HOSTILE)
    for text in HOSTILE:
        page.health.note(text, text)

    await browser.open(f"http://{page.server.address}/")

    strange = (
        "document.querySelectorAll('script, img, svg, iframe, object, embed, form, [onload], [onerror]')"
    )
    assert await browser.evaluate(f"{strange}.length") == 0
    assert await browser.evaluate("document.querySelectorAll('style').length") == 1
    shown = await browser.evaluate("document.body.innerText")
    for text in HOSTILE:
        assert not text.isprintable() or shown.count(text) >= 5
    assert {url for url in browser.asked_for if not url.startswith("data:")} == {
        f"http://{page.server.address}/"
    }
    assert browser.complaints == []


async def test_were_something_let_through_the_policy_would_stop_it(page: HttpPort, browser: Browser):
    await browser.open(f"http://{page.server.address}/")
    for trick in (
        "document.body.insertAdjacentHTML('beforeend', '<img src=/x.png onerror=\"window.ran = 1\">')",
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))",
        "document.body.insertAdjacentHTML('beforeend', '<iframe src=/metrics></iframe>')",
        "document.body.insertAdjacentHTML('beforeend', '<b style=\"position: fixed\">x</b>')",
    ):
        before = len(browser.complaints)
        await browser.evaluate(f"{trick}; 0")

        async def refused(before: int = before) -> bool:
            return any("Content Security Policy" in text for text in browser.complaints[before:])

        await until(refused, f"the browser refuses {trick}")
    assert await browser.evaluate("typeof window.ran") == "undefined"


async def test_nothing_is_cut_off_on_any_screen_and_all_of_it_can_be_read(page: HttpPort, browser: Browser):
    page.now = NOW
    fill(page.board, *HOSTILE)
    page.health.note("steps held", "on " + "n" * 300)
    for width in WIDTHS:
        await browser.open(f"http://{page.server.address}/", width=width)

        across = await browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert across[0] <= across[1], f"at {width} pixels"
        assert await browser.evaluate(BEYOND) == [], f"at {width} pixels"
    backgrounds = set()
    for width in (360, 1280):
        for dark in (False, True):
            await browser.open(f"http://{page.server.address}/", width=width, dark=dark)
            backgrounds.add(await browser.evaluate("getComputedStyle(document.body).backgroundColor"))
            contrast, where = await browser.evaluate(CONTRAST)
            assert contrast >= 4.5, where
    assert len(backgrounds) == 2


async def test_on_a_phone_each_figure_says_what_it_is(page: HttpPort, browser: Browser):
    page.now = NOW
    page.board.rows_read([row("fra1")], NOW)
    await browser.open(f"http://{page.server.address}/", width=360)
    unlabelled = await browser.evaluate(
        """[...document.querySelectorAll('tbody tr:not(.error) td:not(.outcome)')]
             .filter(each => getComputedStyle(each, '::before').content.length < 5).length"""
    )
    heads = "[...document.querySelectorAll('thead th')].map(each => each.textContent).slice(2)"
    labels = "[...document.querySelectorAll('tbody td[data-of]')].map(each => each.dataset.of)"

    assert unlabelled == 0
    assert await browser.evaluate("getComputedStyle(document.querySelector('thead')).display") == "none"
    assert await browser.evaluate(heads) == await browser.evaluate(labels) != []


async def test_a_thousand_nodes_are_shown_the_one_in_trouble_first(page: HttpPort, browser: Browser):
    page.now = NOW
    page.board.rows_read(
        [
            row(f"n{number}", seen=sight(Outcome.FAILED if number == 777 else Outcome.CONVERGED))
            for number in range(1000)
        ],
        NOW,
    )

    await browser.open(f"http://{page.server.address}/", width=360)

    assert await browser.evaluate("document.querySelectorAll('tbody').length") == 1000
    assert await browser.evaluate("document.querySelector('tbody th').textContent") == "n777"
    assert await browser.evaluate("document.title") == "1 ✗ reconciler"


async def test_it_renews_itself(start, browser: Browser, monkeypatch):
    monkeypatch.setattr(fleet_page, "RENEW_SECONDS", 1)
    page: HttpPort = await start()
    page.now = NOW
    page.board.rows_read([row("fra1")], NOW)
    await browser.open(f"http://{page.server.address}/")
    page.now += 1
    page.board.rows_read([row("fra1", seen=sight(Outcome.UNREACHABLE))], NOW)

    async def renewed() -> bool:
        try:
            return "unreachable" in await browser.evaluate("document.body.innerText")
        except AssertionError:  # between two pages there is none
            await asyncio.sleep(0.1)
            return False

    await until(renewed, "the page shows what has become of the node")
