"""
What Xray's messages say, in our words, and the other way round. Only here a name is called an email.

Requests are put together from bytes: building the five nested messages of an
add with protobuf takes a tenth of the time of the whole call.
"""

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256

from reconciler.model import Account, Credential, Listed, Protocol
from reconciler.node._pb.handler_pb2 import AddUserOperation, RemoveUserOperation
from reconciler.node._pb.trojan_pb2 import Account as TrojanAccount
from reconciler.node._pb.user_pb2 import SecurityConfig, SecurityType, User
from reconciler.node._pb.vless_pb2 import Account as VlessAccount
from reconciler.node._pb.vmess_pb2 import Account as VmessAccount

ACCOUNT_TYPES = {
    Protocol.VLESS: VlessAccount.DESCRIPTOR.full_name,
    Protocol.VMESS: VmessAccount.DESCRIPTOR.full_name,
    Protocol.TROJAN: TrojanAccount.DESCRIPTOR.full_name,
}

_MARKS = tuple(bytes((number << 3 | 2,)) for number in range(4))


@lru_cache(maxsize=1024)
def _length(size: int) -> bytes:
    """Return a length as protobuf writes it: seven bits a byte, the last byte without the high one."""
    return bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80,)) + _length(size >> 7)  # noqa: PLR2004, the eighth bit


def _field(number: int, value: bytes) -> bytes:
    """Return a field of text, bytes or a message; an empty one is left out, as protobuf does."""
    return _MARKS[number] + _length(len(value)) + value if value else b""


_ACCOUNT_KINDS = {protocol: _field(1, name.encode()) for protocol, name in ACCOUNT_TYPES.items()}
_ADD = _field(1, AddUserOperation.DESCRIPTOR.full_name.encode())
_REMOVE = _field(1, RemoveUserOperation.DESCRIPTOR.full_name.encode())
_VMESS_SECURITY = _field(3, SecurityConfig(type=SecurityType.AUTO).SerializeToString())


def add_request(tag: str, protocol: Protocol, name: str, account: Account) -> bytes:
    """Return the AlterInboundRequest that puts a user on an inbound, serialised."""
    opens = _field(1, account.credential.text().encode())
    if protocol is Protocol.VLESS:
        # Xray applies an inbound's default flow only to users of its own configuration, so ours is sent.
        opens += _field(2, account.flow.encode())
    elif protocol is Protocol.VMESS:
        opens += _VMESS_SECURITY
    user = _field(2, name.encode()) + _field(3, _ACCOUNT_KINDS[protocol] + _field(2, opens))
    return _field(1, tag.encode()) + _field(2, _ADD + _field(2, _field(1, user)))


def remove_request(tag: str, name: str) -> bytes:
    """Return the AlterInboundRequest that takes a user off an inbound, serialised."""
    return _field(1, tag.encode()) + _field(2, _REMOVE + _field(2, _field(1, name.encode())))


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
