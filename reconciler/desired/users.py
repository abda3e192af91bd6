"""Writing users."""

from dataclasses import dataclass

from reconciler.desired import bounds
from reconciler.desired.writing import Writing
from reconciler.errors import Invalid, Taken, Unknown

ROLES = ("user", "manager", "admin")


@dataclass(frozen=True, slots=True)
class User:
    """A person, as the row says."""

    user_id: int
    name: str
    telegram_id: int | None
    role: str


class Users(Writing):
    """The writes of users that the bot may do."""

    async def add_user(self, name: str, telegram_id: int | None = None) -> User:
        """
        Return the user of this Telegram account as it stands, or make one.

        Without a Telegram account it always makes one: names are no identity.
        Raises Invalid.
        """
        name = bounds.text("name", name, 200)
        if telegram_id is not None:
            bounds.whole("telegram_id", telegram_id, 1, bounds.GREATEST_BIGINT)
        async with self._transaction():
            row = await self._row(
                "INSERT INTO reconciler.users (name, telegram_id) VALUES (%s, %s)"
                " ON CONFLICT (telegram_id) DO NOTHING RETURNING id, name, telegram_id, role",
                name,
                telegram_id,
            )
            row = row or await self._row(
                "SELECT id, name, telegram_id, role FROM reconciler.users WHERE telegram_id = %s", telegram_id
            )
        if row is None:
            raise Taken("telegram_id", telegram_id)
        return User(*row)

    async def find_user(self, text: str) -> User:
        """
        Return the one user whose id, Telegram id or whole name is `text`.

        `user:7`, `telegram:7` and `name:7` ask for one of these only, and `id:7`
        is `user:7`. Raises Unknown, and Invalid when several users answer.
        """
        kind, colon, rest = text.partition(":")
        condition = _CONDITIONS.get(kind) if colon else None
        if condition is None:
            condition, rest = _ANY, text
        async with self._transaction():
            rows = await self._rows(
                f"SELECT id, name, telegram_id, role FROM reconciler.users WHERE {condition}"
                " ORDER BY id LIMIT 10",
                number=_number(rest),
                name=rest.replace("\0", ""),
            )
        found = [User(*row) for row in rows]
        if not found:
            raise Unknown("user", text)
        if len(found) > 1:
            ids = ", ".join(f"user:{user.user_id}" for user in found)
            raise Invalid("user", text, f"one user; these answer: {ids}")
        return found[0]


class Roles(Writing):
    """The write of users that only operators may do."""

    async def set_role(self, user_id: int, role: str) -> None:
        """Set what a user may ask of the bot: user, manager or admin. Raises Invalid, Unknown."""
        if role not in ROLES:
            raise Invalid("role", role, f"one of {', '.join(ROLES)}")
        bounds.row_id("user", user_id)
        async with self._transaction():
            row = await self._row(
                "UPDATE reconciler.users SET role = %s WHERE id = %s RETURNING id", role, user_id
            )
        if row is None:
            raise Unknown("user", user_id)


_ANY = "id = %(number)s OR telegram_id = %(number)s OR name = %(name)s"
_CONDITIONS = {
    "user": "id = %(number)s",
    "id": "id = %(number)s",
    "telegram": "telegram_id = %(number)s",
    "name": "name = %(name)s",
}


def _number(text: str) -> int | None:
    """Return what an id may be; digits of other scripts are somebody's name."""
    if text.isascii() and text.isdigit() and len(text) < 20:  # noqa: PLR2004  a bigint has at most 19 digits
        return min(int(text), bounds.GREATEST_BIGINT)
    return None
