"""
What a listing says, in columns, and only when somebody asks.

Most listings say what the one before said. Two digests tell, at a fraction
of what reading costs.

The users of an inbound are as alike as their accounts are: one length, one
frame around the UUID. A part of a listing in which that is so is cut, not
parsed account by account, which takes a third of the time.
"""

import asyncio
import struct
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b, sha256
from itertools import islice
from typing import TypeAlias

from google.protobuf.message import DecodeError

from reconciler.errors import NodeRejected
from reconciler.model import Account, Credential, Inbound, Protocol
from reconciler.node._pb.handler_pb2 import GetInboundUserResponse
from reconciler.node._pb.trojan_pb2 import Account as TrojanAccount
from reconciler.node._pb.user_pb2 import User
from reconciler.node._pb.vless_pb2 import Account as VlessAccount
from reconciler.node._pb.vmess_pb2 import Account as VmessAccount
from reconciler.node.faults import scrubbed
from reconciler.node.wire import ACCOUNT_TYPES
from reconciler.plan.users import Users

Columns: TypeAlias = tuple[Sequence[str], Sequence[bytes], Sequence[str]]
"""Names, credentials and flows."""

_USERS_PER_BREATH = 2_000
_FRAME = b"\n$"  # in all three messages: field 1, a text of 36 characters
_DASHES = (8, 13, 18, 23)
_DIGITS = b"0123456789abcdef"


class Received:
    """The users of an inbound, as they came from the node called `node`."""

    __slots__ = ("_answer", "_inbound", "_node", "digest")

    def __init__(self, node: str, inbound: Inbound, answer: bytes) -> None:
        self._node = node
        self._inbound = inbound
        self._answer = answer
        self.digest = blake2b(answer, digest_size=16).digest()

    async def users(self) -> Users:
        """Read them, and let others have their turn between; raises NodeRejected."""
        found = Users()
        try:
            users = iter(GetInboundUserResponse.FromString(self._answer).users)
            while (part := columns(islice(users, _USERS_PER_BREATH), self._inbound.protocol))[0]:
                found.extend(*part)
                await asyncio.sleep(0)
        except (DecodeError, ValueError) as error:
            words = f"inbound {self._inbound.tag} {scrubbed(str(error))}"
            raise NodeRejected(self._node, words) from None
        return found


def columns(users: Iterable[User], protocol: Protocol) -> Columns:
    """
    Return the users of a listing, or of a part of it.

    Raises ValueError, whose text names what the inbound speaks, when a user's account is of another protocol.
    """
    names: list[str] = []
    values: list[bytes] = []
    spoken = set()
    for user in users:
        account = user.account
        names.append(user.email)
        values.append(account.value)
        spoken.add(account.type)
    for account_type in spoken - {ACCOUNT_TYPES[protocol]}:
        raise ValueError(f"speaks {_word(account_type)}, not {protocol}")
    read = _READERS[protocol]
    opens = _cut(values, exact=protocol is Protocol.TROJAN)
    if opens is not None:
        return names, opens, [read(values[0]).flow] * len(names)
    accounts = [read(value) for value in values]
    return names, [account.credential for account in accounts], [account.flow for account in accounts]


def _word(account_type: str) -> str:
    """Return the protocol in the name of an account's message, such as xray.proxy.trojan.Account."""
    return account_type.removeprefix("xray.proxy.").split(".")[0]


def _cut(values: Sequence[bytes], *, exact: bool) -> list[bytes] | None:
    """Cut the credentials out of accounts that differ in nothing else; None when that is not so."""
    sizes = {*map(len, values)}
    size = sizes.pop() if sizes else 0
    if sizes or size < len(_FRAME) + 36:
        return None
    frames, texts, ends = zip(
        *struct.iter_unpack(f"{len(_FRAME)}s36s{size - len(_FRAME) - 36}s", b"".join(values)), strict=True
    )
    text = b"".join(texts)
    if {*frames} != {_FRAME} or len({*ends}) != 1 or not _is_plain(text, len(values), exact=exact):
        return None
    opens = bytes.fromhex(text.replace(b"-", b"").decode())
    return [credential for (credential,) in struct.iter_unpack("16s", opens)]


def _is_plain(text: bytes, number: int, *, exact: bool) -> bool:
    """Whether so many UUIDs in a row are written as UUIDs are; `exact` when in small letters."""
    dashes = b"-" * number
    placed = all(text[place::36] == dashes for place in _DASHES)
    letters = text.translate(None, _DIGITS if exact else _DIGITS + b"ABCDEF")
    return placed and letters == dashes * len(_DASHES)


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


_READERS: dict[Protocol, Callable[[bytes], Account]] = {
    Protocol.VLESS: _read_vless,
    Protocol.VMESS: _read_vmess,
    Protocol.TROJAN: _read_trojan,
}
