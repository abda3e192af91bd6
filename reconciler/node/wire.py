"""What Xray's messages say, in our words, and the other way round. Only here a name is called an email."""

from collections.abc import Iterable
from hashlib import sha256
from typing import TypeAlias

from reconciler.model import Account, Credential, Listed, Protocol
from reconciler.node._pb.handler_pb2 import AddUserOperation, AlterInboundRequest, RemoveUserOperation
from reconciler.node._pb.trojan_pb2 import Account as TrojanAccount
from reconciler.node._pb.typed_message_pb2 import TypedMessage
from reconciler.node._pb.user_pb2 import SecurityConfig, SecurityType, User
from reconciler.node._pb.vless_pb2 import Account as VlessAccount
from reconciler.node._pb.vmess_pb2 import Account as VmessAccount

AnyMessage: TypeAlias = VlessAccount | VmessAccount | TrojanAccount | AddUserOperation | RemoveUserOperation

ACCOUNT_TYPES = {
    Protocol.VLESS: VlessAccount.DESCRIPTOR.full_name,
    Protocol.VMESS: VmessAccount.DESCRIPTOR.full_name,
    Protocol.TROJAN: TrojanAccount.DESCRIPTOR.full_name,
}


def add_request(tag: str, protocol: Protocol, name: str, account: Account) -> AlterInboundRequest:
    """Return the request that puts a user on an inbound."""
    user = User(email=name, account=_typed(_account_message(protocol, account)))
    return AlterInboundRequest(tag=tag, operation=_typed(AddUserOperation(user=user)))


def remove_request(tag: str, name: str) -> AlterInboundRequest:
    """Return the request that takes a user off an inbound."""
    return AlterInboundRequest(tag=tag, operation=_typed(RemoveUserOperation(email=name)))


def listed(users: Iterable[User], protocol: Protocol) -> list[Listed]:
    """
    Return the users of a listing.

    Raises ValueError, whose text names what the inbound speaks, when a user's account is of another protocol.
    """
    expected = ACCOUNT_TYPES[protocol]
    read = _READERS[protocol]
    found = []
    for user in users:
        account = user.account
        if account.type != expected:
            raise ValueError(f"speaks {_spoken(account.type)}, not {protocol}")
        found.append(Listed(user.email, read(account.value)))
    return found


def _spoken(account_type: str) -> str:
    """Return the protocol in the name of an account's message, such as xray.proxy.trojan.Account."""
    return account_type.removeprefix("xray.proxy.").split(".")[0]


def _typed(message: AnyMessage) -> TypedMessage:
    return TypedMessage(type=message.DESCRIPTOR.full_name, value=message.SerializeToString())


def _account_message(protocol: Protocol, account: Account) -> VlessAccount | VmessAccount | TrojanAccount:
    secret = account.credential.text()
    if protocol is Protocol.VMESS:
        return VmessAccount(id=secret, security_settings=SecurityConfig(type=SecurityType.AUTO))
    if protocol is Protocol.TROJAN:
        return TrojanAccount(password=secret)
    # Xray applies an inbound's default flow only to users of its own configuration, so ours is always sent.
    return VlessAccount(id=secret, flow=account.flow)


def _read_vless(value: bytes) -> Account:
    account = VlessAccount.FromString(value)
    return Account(_credential(account.id), account.flow)


def _read_vmess(value: bytes) -> Account:
    return Account(_credential(VmessAccount.FromString(value).id))


def _read_trojan(value: bytes) -> Account:
    """
    Read a password.

    One that is no UUID's canonical text is foreign; it becomes a digest, which equals no key of ours.
    """
    password = TrojanAccount.FromString(value).password
    try:
        credential = _credential(password)
    except ValueError:
        credential = None
    if credential is None or credential.text() != password:
        credential = Credential(sha256(password.encode()).digest()[:16])
    return Account(credential)


def _credential(text: str) -> Credential:
    return Credential(bytes.fromhex(text.replace("-", "")))


_READERS = {Protocol.VLESS: _read_vless, Protocol.VMESS: _read_vmess, Protocol.TROJAN: _read_trojan}
