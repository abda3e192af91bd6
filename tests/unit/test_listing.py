"""Listings are cut where their accounts are alike, and parsed where not; what is read is the same."""

from collections.abc import Callable
from uuid import UUID

import pytest

from reconciler.model import Protocol
from reconciler.node import listing
from reconciler.node._pb.trojan_pb2 import Account as TrojanAccount
from reconciler.node._pb.typed_message_pb2 import TypedMessage
from reconciler.node._pb.user_pb2 import SecurityConfig, SecurityType, User
from reconciler.node._pb.vless_pb2 import Account as VlessAccount
from reconciler.node._pb.vmess_pb2 import Account as VmessAccount

TEXTS = [str(UUID(int=number * 0x1234567890ABCDEF_1234567)) for number in range(1, 6)]
VISION = "xtls-rprx-vision"

ACCOUNTS: dict[Protocol, Callable[[str], VlessAccount | VmessAccount | TrojanAccount]] = {
    Protocol.VLESS: lambda text: VlessAccount(id=text, flow=VISION),
    Protocol.VMESS: lambda text: VmessAccount(
        id=text, security_settings=SecurityConfig(type=SecurityType.AUTO)
    ),
    Protocol.TROJAN: lambda text: TrojanAccount(password=text),
}


def user(name: str, account: VlessAccount | VmessAccount | TrojanAccount) -> User:
    kind = account.DESCRIPTOR.full_name
    return User(email=name, account=TypedMessage(type=kind, value=account.SerializeToString()))


@pytest.mark.parametrize("protocol", Protocol)
def test_a_part_is_read_as_its_users_are_one_by_one(protocol: Protocol):
    users = [user(f"k{place}@ours", ACCOUNTS[protocol](text)) for place, text in enumerate(TEXTS)]

    names, opens, flows = listing.columns(users, protocol)

    assert list(names) == [each.email for each in users]
    assert list(opens) == [UUID(text).bytes for text in TEXTS]
    assert set(flows) == ({VISION} if protocol is Protocol.VLESS else {""})


@pytest.mark.parametrize("protocol", [Protocol.VLESS, Protocol.VMESS])
@pytest.mark.parametrize(
    "odd",
    [
        TEXTS[0].replace("-", ""),
        TEXTS[0].upper(),
        TEXTS[0].replace("-", "", 1) + "-",
        "0" * 36,
    ],
    ids=["without dashes", "in capitals", "dashes elsewhere", "too long"],
)
def test_one_odd_uuid_among_many_does_not_spoil_the_others(protocol: Protocol, odd: str):
    texts = [*TEXTS, odd, *TEXTS]
    users = [user(f"k{place}@ours", ACCOUNTS[protocol](text)) for place, text in enumerate(texts)]

    _, opens, _ = listing.columns(users, protocol)

    assert list(opens) == [bytes.fromhex(text.replace("-", "")) for text in texts]


def test_flows_that_differ_are_told_apart():
    flows = ["", VISION, ""]
    users = [user(f"k{place}@ours", VlessAccount(id=TEXTS[0], flow=flow)) for place, flow in enumerate(flows)]

    assert list(listing.columns(users, Protocol.VLESS)[2]) == flows


@pytest.mark.parametrize("password", ["swordfish", TEXTS[0].upper(), "x" * 36])
def test_a_password_that_is_no_uuid_of_ours_equals_no_key(password: str):
    users = [user("ours", TrojanAccount(password=TEXTS[0])), user("other", TrojanAccount(password=password))]

    _, opens, _ = listing.columns(users, Protocol.TROJAN)

    assert opens[0] == UUID(TEXTS[0]).bytes
    assert opens[1] != opens[0]
    assert len(opens[1]) == 16


def test_an_account_of_another_protocol_is_named():
    users = [user("k1@ours", VlessAccount(id=TEXTS[0])), user("k2@ours", TrojanAccount(password="secret"))]

    with pytest.raises(ValueError, match="speaks trojan, not vless") as refusal:
        listing.columns(users, Protocol.VLESS)

    assert "secret" not in str(refusal.value)


def test_no_users_are_no_users():
    assert [list(column) for column in listing.columns([], Protocol.VLESS)] == [[], [], []]


def test_two_odd_texts_do_not_make_two_plain_ones():
    many, few = "0" * 31 + "-" * 5, "0" * 33 + "-" * 3
    users = [user("k1@ours", VlessAccount(id=many)), user("k2@ours", VlessAccount(id=few))]

    with pytest.raises(ValueError, match="fromhex"):
        listing.columns(users, Protocol.VLESS)
