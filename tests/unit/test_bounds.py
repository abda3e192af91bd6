"""What the desired state may hold, asked before any SQL."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired import bounds
from reconciler.desired.keys import NewKey
from reconciler.desired.terms import Receipt, Term
from reconciler.errors import DesiredError, Invalid, Unknown
from reconciler.model import Credential, Inbound, Protocol

CANARY = "5ec2e7aa-0c1d-4b2e-9f3a-0123456789ab"


@pytest.mark.parametrize(
    ("given_api", "stored"),
    [
        ("127.0.0.1:10085", "127.0.0.1:10085"),
        ("FRA-1.Example.org:10085", "fra-1.example.org:10085"),
        ("TLS:FRA-1.example.org:443", "tls:fra-1.example.org:443"),
        ("host:00443", "host:443"),
        ("[::1]:8080", "[::1]:8080"),
        ("[2001:DB8:0:0::1]:8080", "[2001:db8::1]:8080"),
        ("unix:/run/xray/api.sock", "unix:/run/xray/api.sock"),
        ("unix://run//xray/../xray/api.sock", "unix:/run/xray/api.sock"),
    ],
)
def test_an_address_is_stored_in_one_way(given_api, stored):
    assert bounds.api(given_api) == stored
    assert bounds.api(stored) == stored


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "host:",
        ":1",
        "host:0",
        "host:65536",
        "host:١٢",
        "host:-1",
        "ho st:1",
        "::1:8080",
        "[::1:8080",
        "[fe80::1%eth0]:1",
        "[nonsense]:1",
        "http://host:1",
        "tls:",
        "tls:host",
        "unix:",
        "unix:/",
        "unix:relative.sock",
        "unix:/run/\n.sock",
        "unix:/" + "a" * 107,
        None,
        1,
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address):
    with pytest.raises(Invalid, match="api"):
        bounds.api(address)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "not a uuid",
        CANARY[:-1],
        CANARY + "0",
        f"{{{CANARY}}}",
        f"urn:uuid:{CANARY}",
        CANARY.replace("5", "\N{ARABIC-INDIC DIGIT FIVE}"),
        "00000000-0000-0000-0000-000000000000",
        Credential(b"short"),
        b"0123456789abcdef",
        None,
        5,
    ],
    ids=range(12),
)
def test_a_credential_that_is_no_uuid_is_refused_without_being_shown(value):
    with pytest.raises(Invalid) as caught:
        bounds.credential(value)

    assert str(caught.value) == "credential = '…': a UUID, and not the one of zeros"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "value", [CANARY, CANARY.upper(), CANARY.replace("-", ""), UUID(CANARY)], ids=range(4)
)
def test_a_uuid_is_taken_in_its_usual_forms(value):
    assert bounds.credential(value) == Credential(UUID(CANARY).bytes)


def test_a_new_key_does_not_show_its_credential():
    assert CANARY not in repr(NewKey(credential=CANARY))


@pytest.mark.parametrize(
    "template",
    [
        "",
        "vless://host:443",
        "vless://{UUID}@host",
        "vless://{uuid}@{where}",
        "vless://{uuid}@{",
        "vless://{uuid}@{{host}}",
        "vless://{uuid!r}@host",
        "vless://{uuid}\n#{name}",
        "{uuid}" + "a" * 2000,
        7,
    ],
)
def test_a_link_template_holds_the_uuid_and_no_field_we_cannot_fill(template):
    with pytest.raises(Invalid, match=r"link_template.*: must hold \{uuid\}|link_template.*characters"):
        bounds.link_template(template)


def test_a_link_template_may_name_node_and_host_or_be_absent():
    whole = "vless://{uuid}@{host}:443?security=reality#{name}"

    assert bounds.link_template(whole) == whole
    assert bounds.link_template(None) is None


@pytest.mark.parametrize(
    "value", ["", "   ", "a" * 201, "a\x00b", "a\x1fb", "a\u2028b", "\ud800", "a\nb", 5, None]
)
def test_text_with_control_characters_or_of_no_fitting_length_is_refused(value):
    with pytest.raises(Invalid, match="name"):
        bounds.text("name", value, 200)


def test_names_of_any_script_are_kept():
    assert bounds.text("name", "  Ольга 👩‍🚀 ", 200) == "Ольга 👩‍🚀"


@pytest.mark.parametrize("value", ["", "Fra-1", "-fra", "fra 1", "fra/1", "a" * 64, "fré", None])
def test_a_node_name_is_a_label(value):
    with pytest.raises(Invalid, match="name"):
        bounds.label("name", value)


@pytest.mark.parametrize("value", [-1, 2**31, True, 1.5, "5"])
def test_a_capacity_is_a_number_of_keys(value):
    with pytest.raises(Invalid, match="capacity"):
        bounds.capacity(value)


@pytest.mark.parametrize("value", [0, -1, 2**63, True, "1", 1.0])
def test_an_id_that_no_row_can_have_names_nothing(value):
    with pytest.raises(Unknown, match="user"):
        bounds.row_id("user", value)


@pytest.mark.parametrize(
    "inbound",
    [
        Inbound("in", "socks"),  # type: ignore[arg-type]  # what a careless caller may pass
        Inbound("in", Protocol.VLESS, "xtls-rprx-direct"),
        Inbound("in", Protocol.TROJAN, "xtls-rprx-vision"),
        Inbound("in", Protocol.VMESS, "xtls-rprx-vision"),
        Inbound("", Protocol.VLESS),
        Inbound("a\x1fb", Protocol.VLESS),
        Inbound("a" * 201, Protocol.VLESS),
    ],
)
def test_an_inbound_of_unknown_protocol_flow_or_tag_is_refused(inbound):
    with pytest.raises(Invalid):
        bounds.inbound(inbound)


def test_a_node_has_one_inbound_at_least_and_no_tag_twice():
    one = Inbound("in", Protocol.VLESS, "xtls-rprx-vision")

    assert bounds.inbounds([one]) == (one,)
    for wrong in ([], [one, Inbound("in", Protocol.TROJAN)]):
        with pytest.raises(Invalid, match="inbounds"):
            bounds.inbounds(wrong)


@pytest.mark.parametrize("values", [[], [0], [-1], [2**63], [True], ["1"], [1, 2**64]])
def test_an_order_over_no_keys_or_impossible_ones_is_refused(values):
    with pytest.raises(Invalid, match="key_ids"):
        bounds.key_ids(values)


@given(st.lists(st.integers(1, 2**63 - 1), min_size=1))
def test_the_keys_of_an_order_ascend_and_stand_once(values):
    kept = bounds.key_ids(values)

    assert kept == sorted(set(values))


NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        Term(),
        Term(days=1, until=NOW),
        Term(days=0),
        Term(days=-1),
        Term(days=3661),
        Term(days=True),
        Term(until=NOW.replace(tzinfo=None)),
        Term(until=datetime(2100, 1, 1, tzinfo=UTC)),
        Term(until=datetime(2100, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        Term(until=datetime(1999, 12, 31, tzinfo=UTC)),
        Term(until=NOW, starts_at=NOW),
        Term(until=NOW, starts_at=NOW + timedelta(seconds=1)),
        Term(days=1, starts_at=NOW.replace(tzinfo=None)),
        Term(days=1, traffic_bytes=-1),
        Term(days=1, traffic_bytes=2**60 + 1),
        Term(days=1, plan="a" * 101),
    ],
    ids=range(16),
)
def test_a_term_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(Invalid):
        wrong.check()


def test_a_term_at_its_bounds_is_taken():
    Term(days=3660).check()
    Term(days=1, traffic_bytes=0).check()
    Term(
        until=datetime(2099, 12, 31, 23, 59, 59, tzinfo=UTC), starts_at=datetime(2000, 1, 1, tzinfo=UTC)
    ).check()


@pytest.mark.parametrize(
    "wrong",
    [
        Receipt(kind="theft"),  # type: ignore[arg-type]  # what a careless caller may pass
        Receipt(external_id=""),
        Receipt(external_id=" a"),
        Receipt(external_id="a" * 201),
        Receipt(amount=5),
        Receipt(currency="EUR"),
        Receipt(amount=5, currency="euro"),
        Receipt(amount=2**63, currency="EUR"),
        Receipt(note="a" * 2001),
        Receipt(note="a\x00"),
    ],
    ids=range(10),
)
def test_a_receipt_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(Invalid):
        wrong.check()


def test_a_receipt_may_have_lines_and_only_a_refund_is_for_a_refund():
    Receipt(amount=-500, currency="EUR", note="first\nsecond").check()
    Receipt(kind="refund", amount=500, currency="EUR").check(refund=True)
    for wrong in (Receipt(), Receipt(kind="refund", amount=-500, currency="EUR")):
        with pytest.raises(Invalid):
            wrong.check(refund=True)
    with pytest.raises(Invalid):
        Receipt(kind="refund").check()


@given(st.text() | st.integers() | st.none() | st.binary() | st.floats())
def test_no_input_breaks_a_bound_in_any_other_way_than_its_error(value):
    asked = (
        bounds.api,
        bounds.credential,
        bounds.link_template,
        bounds.capacity,
        bounds.traffic,
        lambda given: bounds.text("name", given, 10),
        lambda given: bounds.label("name", given),
        lambda given: bounds.row_id("key", given),
        lambda given: bounds.instant("until", given),
    )
    for ask in asked:
        try:
            ask(value)
        except DesiredError:
            continue
