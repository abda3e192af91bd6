import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.bells import EVERYWHERE, Bell, read_bell


def test_pairs_are_gathered_by_node():
    assert read_bell("1 k 12:345,12:346,0:7") == Bell(keys={12: frozenset({345, 346}), 0: frozenset({7})})


def test_nodes_and_everything_are_read():
    assert read_bell("1 n 12,13") == Bell(nodes=frozenset({12, 13}))
    assert read_bell("1 *") == EVERYWHERE


@pytest.mark.parametrize(
    "payload",
    [
        "", " ", "1", "1 k", "1 k ", "1 k 1", "1 k 1:", "1 k :1", "1 k 1:2,", "1 k -1:2", "1 k 1:2 ", "1 n",
        "1 n ,", "1 n 1,,2", "1 n 1.5", "2 k 1:2", "2 *", "1 **", "1 h", "1 k 1:99999999999999999999",
        "1 n \u0661", "hello", "1 k 1:2\n", '{"node": 1}',
    ],
)  # fmt: skip
def test_what_is_not_ours_is_no_bell(payload: str):
    assert read_bell(payload) is None


@given(st.text())
def test_no_payload_whatever_raises(payload: str):
    read_bell(payload)
    read_bell(f"1 k {payload}")
