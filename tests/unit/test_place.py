"""Which node gets a key that has none."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from reconciler.plan.place import Placement, Room, Wanted, choose

CAPACITY = st.none() | st.integers(0, 12)


@st.composite
def fleets(draw):
    rows = draw(st.lists(st.tuples(CAPACITY, st.integers(0, 12)), max_size=6))
    return [Room(index + 1, f"node-{index}", capacity, used) for index, (capacity, used) in enumerate(rows)]


@st.composite
def wants(draw):
    missing = st.none() | st.lists(st.integers(1, 7), max_size=7, unique=True).map(tuple)
    return [Wanted(index + 1, draw(missing)) for index in range(draw(st.integers(0, 40)))]


def ones(count: int) -> list[Wanted]:
    return [Wanted(key_id) for key_id in range(1, count + 1)]


def filled(rooms: list[Room], placements: list[Placement]) -> list[Room]:
    more = Counter(placement.node_id for placement in placements)
    return [Room(room.node_id, room.name, room.capacity, room.used + more[room.node_id]) for room in rooms]


def against(room: Room, rooms: list[Room]) -> int:
    """What a room's share is measured by: its capacity, or the greatest one of the pool."""
    return room.capacity or max((other.capacity for other in rooms if other.capacity), default=1)


@given(fleets(), wants())
def test_no_node_gets_more_than_its_capacity(rooms, wanted):
    after = filled(rooms, choose(rooms, wanted))

    for before, room in zip(rooms, after, strict=True):
        assert room.capacity is None or room.used <= max(room.capacity, before.used)


@given(fleets(), st.integers(0, 60))
def test_a_key_is_left_out_only_when_every_node_is_full(rooms, count):
    placements = choose(rooms, ones(count))

    assert len({placement.key_id for placement in placements}) == len(placements)
    if len(placements) < count:
        assert not any(room.open for room in filled(rooms, placements))


@given(fleets(), st.integers(0, 60))
def test_the_last_key_of_a_node_found_no_open_node_with_a_lower_share(rooms, count):
    placements = choose(rooms, ones(count))
    after = filled(rooms, placements)

    got = {placement.node_id for placement in placements}
    for taker in (room for room in after if room.node_id in got):
        share_before_last = (taker.used - 1) / against(taker, rooms)
        for other in (room for room in after if room.open):
            assert share_before_last <= other.used / against(other, rooms)


@given(fleets(), wants(), st.randoms(use_true_random=False))
def test_the_order_of_the_nodes_does_not_matter(rooms, wanted, random):
    shuffled = random.sample(rooms, len(rooms))

    assert choose(shuffled, wanted) == choose(rooms, wanted)


@given(fleets(), wants(), st.integers(0, 40))
def test_two_batches_place_like_one(rooms, wanted, cut):
    first = choose(rooms, wanted[:cut])
    second = choose(filled(rooms, first), wanted[cut:])

    assert first + second == choose(rooms, wanted)


@given(fleets(), wants())
def test_a_key_for_all_nodes_goes_only_on_those_it_lacks_and_once_on_each(rooms, wanted):
    placements = choose(rooms, wanted)

    assert len(set(placements)) == len(placements)
    for key_id, missing in wanted:
        nodes = {placement.node_id for placement in placements if placement.key_id == key_id}
        assert len(nodes) <= 1 if missing is None else nodes <= set(missing)


def test_a_key_for_all_nodes_goes_on_every_open_one():
    rooms = [Room(1, "a", None, 0), Room(2, "b", 5, 5), Room(3, "c", 5, 4)]

    assert choose(rooms, [Wanted(9, (1, 2, 3)), Wanted(10, (1, 3))]) == [(9, 1), (9, 3), (10, 1)]


def test_equal_shares_go_by_name():
    rooms = [Room(1, "zurich", 10, 2), Room(2, "athens", 10, 2)]

    assert choose(rooms, ones(2)) == [(1, 2), (2, 1)]


def test_the_share_counts_and_not_the_number_of_keys():
    rooms = [Room(1, "small", 10, 5), Room(2, "large", 1000, 400)]

    assert choose(rooms, ones(1)) == [(1, 2)]


def test_a_node_without_capacity_takes_its_part_beside_the_limited_ones():
    rooms = [Room(1, "limited", 100, 0), Room(2, "unlimited", None, 0)]

    placements = choose(rooms, ones(300))

    assert Counter(node_id for _, node_id in placements[:100]) == {1: 50, 2: 50}
    assert Counter(node_id for _, node_id in placements) == {1: 100, 2: 200}


def test_thousands_of_keys_spread_evenly_over_many_nodes():
    rooms = [Room(index, f"node-{index:03}", None, 0) for index in range(1, 101)]

    counts = Counter(node_id for _, node_id in choose(rooms, ones(20_000)))

    assert set(counts.values()) == {200}
