"""The users of one inbound, in columns: a hundred thousand of them cost little while nobody asks for one."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast, overload

from reconciler.model import Account, Credential, Listed, Owner

CHUNK = 2_000
"""Users that are told apart at one go; it takes less than a millisecond."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Apart:
    """Users told apart: ours by the id of their key, and the others."""

    credentials: dict[int, bytes]
    flows: dict[int, str]
    foreign: list[Listed]

    def account(self, key_id: int) -> Account:
        """Return the account of one of ours."""
        return Account(Credential(self.credentials[key_id]), self.flows[key_id])


class Users(Sequence[Listed]):
    """
    What a node lists; each user is put together when it is asked for.

    The columns hold credentials as plain bytes, so nothing prints them.
    """

    __slots__ = ("_apart", "_credentials", "_flows", "_names")

    def __init__(
        self, names: Iterable[str] = (), credentials: Iterable[bytes] = (), flows: Iterable[str] = ()
    ) -> None:
        self._names = list(names)
        self._credentials = list(credentials)
        self._flows = list(flows)
        self._apart: tuple[Owner, Apart] | None = None

    @classmethod
    def of(cls, users: Sequence[Listed]) -> "Users":
        """Return the same users in columns."""
        if isinstance(users, Users):
            return users
        accounts = [user.account for user in users]
        return cls(
            (user.name for user in users),
            (account.credential for account in accounts),
            (account.flow for account in accounts),
        )

    def extend(self, names: Iterable[str], credentials: Iterable[bytes], flows: Iterable[str]) -> None:
        """Add users at the end; the columns must be of one length."""
        self._names += names
        self._credentials += credentials
        self._flows += flows
        self._apart = None

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> Listed: ...

    @overload
    def __getitem__(self, place: slice) -> "Users": ...

    def __getitem__(self, place: int | slice) -> "Listed | Users":
        name, credential, flow = self._names[place], self._credentials[place], self._flows[place]
        if isinstance(place, slice):
            return Users(name, credential, flow)  # type: ignore[arg-type]  # slices of the columns
        return Listed(name, Account(Credential(credential), flow))  # type: ignore[arg-type]  # one of each

    def __iter__(self) -> Iterator[Listed]:
        for name, credential, flow in zip(self._names, self._credentials, self._flows, strict=True):
            yield Listed(name, Account(Credential(credential), flow))

    def __repr__(self) -> str:
        return f"{len(self)} users"

    def apart(self, owner: Owner) -> Apart:
        """Return the users told apart."""
        for _ in self.tell_apart(owner):
            pass
        assert self._apart is not None, "tell_apart has just filled it"
        return self._apart[1]

    def tell_apart(self, owner: Owner) -> Iterator[None]:
        """Prepare `apart`, and yield now and then, so that a long listing holds nobody up."""
        if self._apart is not None and self._apart[0] == owner:
            return
        credentials: dict[int | None, bytes] = {}
        flows: dict[int | None, str] = {}
        foreign: list[Listed] = []
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            key_ids = _key_ids(self._names[part], owner)
            credentials.update(zip(key_ids, self._credentials[part], strict=True))
            flows.update(zip(key_ids, self._flows[part], strict=True))
            if None in credentials:
                del credentials[None], flows[None]
                foreign += (self[place] for place, key_id in enumerate(key_ids, start) if key_id is None)
            yield
        self._apart = (
            owner,
            Apart(cast("dict[int, bytes]", credentials), cast("dict[int, str]", flows), foreign),
        )


def _key_ids(names: Sequence[str], owner: Owner) -> Sequence[int | None]:
    """Return what `owner.key_id` says of each name; quickly when all are ours, as most are."""
    text = "\n".join(names)
    numbers = _ours(owner).findall(text)
    if len(numbers) == len(names) == text.count("\n") + 1:
        return [*map(int, numbers)]
    return [owner.key_id(name) for name in names]


@lru_cache(maxsize=8)
def _ours(owner: Owner) -> re.Pattern[str]:
    return re.compile(rf"^k([1-9][0-9]{{0,17}})@{re.escape(owner.mark)}$", re.MULTILINE)
