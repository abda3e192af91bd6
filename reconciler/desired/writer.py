"""
The only hands that change the desired state.

`Writer` holds what the bot and other shops may do, and needs the role
reconciler_writer; `Operator` adds what only the command line may, and needs
reconciler_operator. The words themselves stand in the modules gathered here.
"""

from reconciler.desired.ends import Ends
from reconciler.desired.imports import Imports
from reconciler.desired.moves import Moves
from reconciler.desired.refunds import Refunds
from reconciler.desired.users import Roles, Users


class Writer(Users, Refunds):
    """Users, subscriptions, keys and grants."""


class Operator(Writer, Roles, Imports, Ends, Moves):
    """All of the desired state."""
