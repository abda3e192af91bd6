"""
The guard: whether to dare what the diff decided.

A promise is broken by removing a key before the promised time, or by taking
its promised account away. A few of these are the day's work; many at once are
what a wrong UPDATE, a half-restored database or a bug in a counter looks
like. So they have a budget per node and hour, and a plan that exceeds it has
all of them held, not the first few let through: nobody can say which few
would be right.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.model import Desired, Owner
from reconciler.plan.diff import Actual, Hold, diff
from reconciler.plan.steps import Breach, Neighbour, Plan


@dataclass(frozen=True, slots=True)
class Budget:
    """How many steps of one kind a node may see in an hour."""

    floor: int
    share: float

    def limit(self, live_promises: int) -> float:
        """Return the most that is let through on a node with so many live promises."""
        return max(self.floor, self.share * live_promises)


Limits = Mapping[Breach, Budget]


def decide(
    desired: Desired,
    actual: Actual,
    owner: Owner,
    limits: Limits,
    *,
    removals_frozen: bool = False,
    purge: frozenset[int] = frozenset(),
    crowded: frozenset[Neighbour] | None = None,
) -> Plan:
    """
    Return the plan for one node as far as it may be carried out; what may not is in its `held`.

    `removals_frozen` holds every removal and every step that breaks a
    promise, whatever the budgets say.
    """
    plan = diff(desired, actual, owner, Hold(removals=removals_frozen), purge, crowded)
    exceeded = frozenset(breach for breach in Breach if _exceeds(plan, desired, breach, limits[breach]))
    if not exceeded:
        return plan
    return diff(desired, actual, owner, Hold(exceeded, removals_frozen), purge, crowded)


def _exceeds(plan: Plan, desired: Desired, breach: Breach, budget: Budget) -> bool:
    """Whether the plan's steps of one kind, plus the last hour's, are more than the budget."""
    keys = {step.key_id for step in plan.breaching(breach)}
    if not keys:
        return False
    spent = desired.quota_spent if breach is Breach.OVER_QUOTA else desired.early_spent
    counted = sum(1 for key_id in keys if _is_spent(desired, key_id))
    live = sum(1 for row in desired.rows.values() if row.promise and row.promise.live)
    return spent + len(keys) - counted > budget.limit(live)


def _is_spent(desired: Desired, key_id: int) -> bool:
    promise = desired.rows[key_id].promise
    return promise is not None and promise.live and promise.spent
