"""
What we say in Xray's messages. Only here and in `listing` a name is called an email.

Requests are put together from bytes: building the five nested messages of an
add with protobuf takes a tenth of the time of the whole call.
"""

from functools import lru_cache

from reconciler.model import Account, Protocol
from reconciler.node._pb.handler_pb2 import AddUserOperation, RemoveUserOperation
from reconciler.node._pb.trojan_pb2 import Account as TrojanAccount
from reconciler.node._pb.user_pb2 import SecurityConfig, SecurityType
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
