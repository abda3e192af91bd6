"""Rows that were packed, and keys that were set aside, change nothing of what is decided."""

from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from reconciler.model import Desired, Listed, Owner
from reconciler.plan.diff import diff
from reconciler.plan.rows import Rows, desired_number, is_quiet, record, telling
from reconciler.plan.settle import settle
from reconciler.plan.steps import Neighbour, Phase
from reconciler.plan.users import CHUNK, Users
from tests.builders import DAY, LATER, NOW, OURS, VLESS, account, actual, desired, kept, key, listed, promise
from tests.cycles import World
from tests.histories import PLAN, Event, faults, hands, rows_change, surroundings, worlds
from tests.invariants import live_through


def packed(given: Desired) -> Desired:
    """The same as the database hands it over."""
    quiet = [row for row in given.rows.values() if is_quiet(row)]
    rest = {key_id: row for key_id, row in given.rows.items() if not is_quiet(row)}
    return replace(given, rows=Rows(b"".join(record(row) for row in quiet), rest))


@settings(PLAN, max_examples=800)
@given(worlds(), st.lists(st.one_of(rows_change, hands, hands, surroundings, faults), max_size=25))
def test_packed_rows_lead_to_the_same_plan(world: World, events: list[Event]):
    live_through(world, events)
    spelled_out = world.desired()
    rows = packed(spelled_out)
    event(f"quiet: {len(spelled_out.rows) - len(telling(rows.rows))}")

    plan = world.decide(rows)

    assert plan == world.decide(spelled_out)
    assert dict(rows.rows) == dict(spelled_out.rows)
    assert desired_number(rows.rows) == desired_number(spelled_out.rows)
    for done in (set(plan.steps), set(plan.steps[::2])):
        assert settle(rows, plan, done) == settle(spelled_out, plan, done)


def test_a_quiet_key_whose_neighbour_has_gone_is_put_in_anew():
    rows = packed(desired(kept(1), kept(2)))
    neighbour = Neighbour(VLESS.tag, 1, listed("operator", 1), waiting=False)

    plan = diff(rows, actual(listed(1), listed(2)), OURS, crowded=frozenset({neighbour}))

    assert [(step.phase, step.key_id) for step in plan.steps] == [(Phase.LIFT, 1)]


def test_a_quiet_row_is_packed_and_comes_back_whole():
    row = replace(kept(7, until=NOW + 0.000_001), changed_at=NOW - 0.123_456)

    rows = packed(desired(row, key(8))).rows

    assert [row.key_id for row in telling(rows)] == [8]
    assert rows[7] == row
    assert 7 in rows
    assert 9 not in rows
    with pytest.raises(KeyError):
        rows[9]


@pytest.mark.parametrize(
    "row",
    [
        key(1),
        replace(kept(1), until=LATER + DAY),
        replace(kept(1), promise=promise(1, live=False)),
        replace(kept(1), promise=promise(2)),
        replace(kept(1), promise=promise(1, spent=True)),
    ],
    ids=[
        "not promised",
        "extended",
        "its promise ended",
        "another account promised",
        "a step against it counted",
    ],
)
def test_a_row_that_asks_for_something_is_not_quiet(row):
    assert not is_quiet(row)


def test_neither_rows_nor_users_show_a_credential():
    rows = packed(desired(kept(1), key(2))).rows
    users = Users.of([Listed("k1@ours", account(1)), Listed("k2@ours", account(2))])
    shown = f"{rows!r} {users!r} {users.apart(OURS)!r} {users[:1]!r} {list(users)!r} {dict(rows)!r}"

    for number in (1, 2):
        opens = account(number).credential
        assert opens.text() not in shown
        assert opens.hex() not in shown
        assert repr(bytes(opens)) not in shown


def test_users_in_columns_are_the_users_that_were_put_in():
    plain = [listed(1), listed("operator", 3, "xtls-rprx-vision"), listed(2)]
    users = Users.of(plain)

    assert list(users) == plain
    assert users[1] == plain[1]
    assert list(users[1:]) == plain[1:]
    assert len(users) == 3
    users.extend(["k9@ours"], [bytes(account(9).credential)], [""])
    assert users[-1] == listed(9)


@pytest.mark.parametrize(
    "odd", ["operator", "K5@OURS", "k05@ours", "k5@ours\nk6@ours", "", "k5@ourz", "k٣@ours"]
)
@pytest.mark.parametrize("owner", [OURS, Owner("o-s")])
def test_a_long_listing_is_told_apart_name_by_name(odd: str, owner: Owner):
    names = [owner.name(number) for number in range(10, CHUNK + 20)]
    names.insert(CHUNK // 2, odd)
    users = Users(names, [account(1).credential] * len(names), [""] * len(names))

    found = users.apart(owner)

    assert set(found.credentials) == {owner.key_id(name) for name in names} - {None}
    assert [user.name for user in found.foreign] == [name for name in names if owner.key_id(name) is None]


def test_telling_apart_gives_way_after_each_chunk():
    users = Users(
        [OURS.name(number) for number in range(1, 2 * CHUNK + 2)],
        [b""] * (2 * CHUNK + 1),
        [""] * (2 * CHUNK + 1),
    )

    assert sum(1 for _ in users.tell_apart(OURS)) == 3
    assert sum(1 for _ in users.tell_apart(OURS)) == 0
