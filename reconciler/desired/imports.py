"""Taking over keys that customers hold already."""

from uuid import UUID

from reconciler.desired import bounds
from reconciler.desired.keys import NewKey
from reconciler.desired.subscriptions import Granted, Subscriptions
from reconciler.desired.terms import Receipt, Term
from reconciler.errors import Invalid

_SAME = """
SELECT s.id, k.id, s.expires_at
  FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
 WHERE reconciler.masked(k.credential) = reconciler.masked(%(credential)s::uuid)
   AND k.credential = %(credential)s::uuid AND s.user_id = %(user)s
"""

IMPORTED = Receipt(kind="import")


class Imports(Subscriptions):
    """The write of keys that others made."""

    async def import_key(self, user_id: int, key: NewKey, term: Term, receipt: Receipt = IMPORTED) -> Granted:
        """
        Grant a key whose credential is given; a key that this user has already is `repeated`.

        So an import that broke off is simply run again. Raises Invalid,
        Unknown for the user, and Taken for the credential of somebody else.
        """
        user_id = bounds.row_id("user", user_id)
        term.check()
        key.check()
        receipt.check()
        if key.credential is None:
            raise Invalid("credential", None, "given: an import takes over what customers hold")
        credential = UUID(bytes=bytes(bounds.credential(key.credential)))
        async with self._transaction():
            same = await self._row(_SAME, credential=credential, user=user_id)
            if same is not None:
                return Granted(same[0], same[1], same[2], repeated=True)
            return await self._grant(user_id, term, key, receipt)
