"""Alive: the loops turn. Ready: the work goes well."""

from reconciler.status.health import Check, Health, healthy


def failing(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.ok and check.required]


def test_a_loop_that_turns_is_alive_and_one_that_does_not_is_named():
    health = Health()
    health.expect("fleet", 10, 0.0)
    health.expect("fra-1", 10, 0.0)

    health.beat("fleet", 9.0)

    assert failing(health.live(10.0)) == []
    assert failing(health.live(10.5)) == ["fra-1"]
    assert not healthy(health.live(10.5))


def test_a_loop_that_never_turned_is_found():
    health = Health()
    health.expect("fra-1", 10, 100.0)

    assert failing(health.live(111.0)) == ["fra-1"]


def test_a_loop_that_ended_is_not_waited_for():
    health = Health()
    health.expect("fra-1", 10, 0.0, node=True)
    health.forget("fra-1")
    health.beat("fra-1", 1.0)

    assert health.live(1000.0) == []
    assert failing(health.ready(1000.0)) == ["database"]


def test_a_new_limit_does_not_forgive_a_stuck_loop():
    health = Health()
    health.expect("fra-1", 10, 0.0)
    health.expect("fra-1", 20, 19.0)

    assert failing(health.live(20.0)) == []
    assert failing(health.live(21.0)) == ["fra-1"]


def test_life_depends_on_nothing_outside():
    health = Health()
    health.expect("fleet", 10, 0.0)
    health.stopping()
    health.note("removals", "frozen")

    assert healthy(health.live(1.0))


def test_ready_is_when_the_database_was_read_lately():
    health = Health()

    assert failing(health.ready(0.0)) == ["database"]

    health.database_read(0.0)

    assert failing(health.ready(30.0)) == []
    assert failing(health.ready(30.1)) == ["database"]


def test_ready_is_when_every_node_was_tried_once():
    health = Health()
    health.database_read(0.0)
    health.expect("fleet", 10, 0.0)
    for node in ("fra-1", "ams-1"):
        health.expect(node, 10, 0.0, node=True)
    health.beat("fra-1", 1.0)

    (check,) = (check for check in health.ready(1.0) if not check.ok)
    assert check.detail == "1 of 2 nodes tried, waiting for ams-1"

    health.beat("ams-1", 2.0)

    assert healthy(health.ready(2.0))


def test_many_waiting_nodes_are_not_all_named():
    health = Health()
    for number in range(1000):
        health.expect(f"n-{number}", 10, 0.0, node=True)

    assert max(len(check.detail) for check in health.ready(0.0)) < 100


def test_nothing_is_ready_once_it_stops():
    health = Health()
    health.database_read(0.0)
    health.stopping()

    assert failing(health.ready(0.0)) == ["running"]


def test_a_note_is_shown_until_cleared_and_fails_nothing():
    health = Health()
    health.database_read(0.0)
    health.note("removals", "frozen: the clock jumped")

    assert "frozen: the clock jumped" in [check.detail for check in health.ready(0.0)]
    assert healthy(health.ready(0.0))

    health.clear("removals")

    assert "removals" not in [check.name for check in health.ready(0.0)]
