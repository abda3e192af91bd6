"""What is written down after a cycle: promises made, carried on and ended, and the keys on the node."""

from reconciler.model import Standing
from reconciler.plan.diff import Hold, diff
from reconciler.plan.settle import Ended, Made, settle
from reconciler.plan.steps import Breach
from tests.builders import LATER, NOW, OURS, SECOND, VLESS, actual, desired, kept, key, listed, promise

BOTH = (VLESS, SECOND)


def test_an_added_key_is_promised_its_account_until_its_end():
    rows = desired(key(1))
    plan = diff(rows, actual(), OURS)

    settled = settle(rows, plan, plan.steps)

    assert settled.made == (Made(1, rows.rows[1].digest, LATER),)
    assert settled.active_users == 1


def test_an_add_without_an_answer_is_promised_nothing():
    rows = desired(key(1), key(2))
    plan = diff(rows, actual(), OURS)

    settled = settle(rows, plan, plan.steps[1:])

    assert [made.key_id for made in settled.made] == [2]
    assert settled.active_users == 1


def test_a_key_found_in_its_place_is_promised():
    """The cycle that put it there may have died before it wrote that down."""
    rows = desired(key(1))

    settled = settle(rows, diff(rows, actual(listed(1)), OURS), ())

    assert [made.key_id for made in settled.made] == [1]


def test_a_key_with_its_promise_needs_no_other():
    rows = desired(kept(1))
    settled = settle(rows, diff(rows, actual(listed(1)), OURS), ())

    assert (settled.made, settled.extended, settled.ended) == ((), (), ())


def test_a_replaced_account_is_promised_in_place_of_the_old():
    rows = desired(key(1, opens=5, promised=promise(1)))
    plan = diff(rows, actual(listed(1)), OURS)

    assert [made.digest for made in settle(rows, plan, plan.steps).made] == [rows.rows[1].digest]
    assert settle(rows, plan, ()).made == ()


def test_an_extension_is_written_though_the_node_is_not_touched():
    rows = desired(key(1, until=LATER + 5, promised=promise(1)))
    plan = diff(rows, actual(listed(1)), OURS)

    assert settle(rows, plan, plan.steps).extended == (Made(1, rows.rows[1].digest, LATER + 5),)


def test_a_removed_key_has_its_promise_ended_with_the_reason():
    rows = desired(kept(1, Standing.EXPIRED, until=NOW))
    plan = diff(rows, actual(listed(1)), OURS)

    settled = settle(rows, plan, plan.steps)

    assert settled.ended == (Ended(1, Standing.EXPIRED),)
    assert settled.active_users == 0


def test_a_removal_without_an_answer_ends_nothing():
    rows = desired(kept(1, Standing.EXPIRED, until=NOW))
    settled = settle(rows, diff(rows, actual(listed(1)), OURS), ())

    assert settled.ended == ()
    assert settled.active_users == 1


def test_an_ended_key_found_gone_has_its_promise_ended():
    rows = desired(kept(1, Standing.REVOKED), key(2, Standing.REVOKED, promised=promise(2, live=False)))

    settled = settle(rows, diff(rows, actual(), OURS), ())

    assert settled.ended == (Ended(1, Standing.REVOKED),)


def test_a_held_key_keeps_its_promise():
    rows = desired(kept(1, Standing.REVOKED), key(2, opens=5, promised=promise(2)))
    plan = diff(rows, actual(listed(1), listed(2)), OURS, Hold(frozenset(Breach)))

    settled = settle(rows, plan, plan.steps)

    assert (settled.made, settled.ended) == ((), ())
    assert settled.active_users == 2


def test_a_key_in_conflict_is_promised_nothing_and_keeps_what_it_has():
    rows = desired(key(1), kept(2, Standing.REVOKED))
    there = actual(listed("x", opens=1), listed(2), listed("y", opens=2))

    settled = settle(rows, diff(rows, there, OURS), ())

    assert (settled.made, settled.ended) == ((), ())


def test_a_stray_keeps_the_promise_it_may_have():
    rows = desired(kept(1, Standing.STRAY))

    assert settle(rows, diff(rows, actual(listed(1)), OURS), ()).ended == ()


def test_nothing_is_made_or_ended_while_an_inbound_is_missing():
    rows = desired(key(1), kept(2, Standing.EXPIRED, until=NOW), inbounds=BOTH)
    plan = diff(rows, actual(listed(2)), OURS)

    settled = settle(rows, plan, plan.steps)

    assert len(plan.steps) == 2
    assert (settled.made, settled.ended) == ((), ())


def test_a_promise_needs_the_key_on_every_inbound():
    rows = desired(key(1), inbounds=BOTH)
    plan = diff(rows, {VLESS.tag: (listed(1),), SECOND.tag: ()}, OURS)

    assert settle(rows, plan, ()).made == ()
    assert [made.key_id for made in settle(rows, plan, plan.steps).made] == [1]


def test_a_node_without_inbounds_is_promised_nothing():
    rows = desired(key(1), kept(2, Standing.REVOKED), inbounds=())

    settled = settle(rows, diff(rows, {}, OURS), ())

    assert (settled.made, settled.ended, settled.active_users) == ((), (), 0)


def test_a_key_on_two_inbounds_is_one_active_user():
    rows = desired(kept(1, Standing.EXPIRED, until=NOW), kept(2), inbounds=BOTH)
    there = {VLESS.tag: (listed(1), listed(2)), SECOND.tag: (listed(1), listed(2))}
    plan = diff(rows, there, OURS)

    assert settle(rows, plan, ()).active_users == 2
    assert settle(rows, plan, plan.steps[:1]).active_users == 2
    assert settle(rows, plan, plan.steps).active_users == 1
