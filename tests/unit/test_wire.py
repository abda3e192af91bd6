"""Requests that are put together from bytes, beside what protobuf makes of the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import Account, Credential, Protocol
from reconciler.node import wire
from reconciler.node._pb.handler_pb2 import AddUserOperation, AlterInboundRequest, RemoveUserOperation
from reconciler.node._pb.trojan_pb2 import Account as TrojanAccount
from reconciler.node._pb.typed_message_pb2 import TypedMessage
from reconciler.node._pb.user_pb2 import SecurityConfig, SecurityType, User
from reconciler.node._pb.vless_pb2 import Account as VlessAccount
from reconciler.node._pb.vmess_pb2 import Account as VmessAccount

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
credentials = st.binary(min_size=16, max_size=16).map(Credential)

Known = VlessAccount | VmessAccount | TrojanAccount | AddUserOperation | RemoveUserOperation


def typed(message: Known) -> TypedMessage:
    return TypedMessage(type=message.DESCRIPTOR.full_name, value=message.SerializeToString())


def request(tag: str, operation: AddUserOperation | RemoveUserOperation) -> bytes:
    return AlterInboundRequest(tag=tag, operation=typed(operation)).SerializeToString()


def opened_by(protocol: Protocol, account: Account) -> VlessAccount | VmessAccount | TrojanAccount:
    secret = account.credential.text()
    if protocol is Protocol.VLESS:
        return VlessAccount(id=secret, flow=account.flow)
    if protocol is Protocol.VMESS:
        return VmessAccount(id=secret, security_settings=SecurityConfig(type=SecurityType.AUTO))
    return TrojanAccount(password=secret)


@given(texts, st.sampled_from(Protocol), texts, credentials, texts)
def test_an_add_is_what_protobuf_would_send(
    tag: str, protocol: Protocol, name: str, opens: Credential, flow: str
):
    account = Account(opens, flow)
    user = User(email=name, account=typed(opened_by(protocol, account)))

    assert wire.add_request(tag, protocol, name, account) == request(tag, AddUserOperation(user=user))


@given(texts, texts)
def test_a_removal_is_what_protobuf_would_send(tag: str, name: str):
    assert wire.remove_request(tag, name) == request(tag, RemoveUserOperation(email=name))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 70_000])
def test_every_length_is_written_as_protobuf_writes_it(size: int):
    assert wire.remove_request("in", "n" * size) == request("in", RemoveUserOperation(email="n" * size))
