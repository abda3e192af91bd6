"""How a cycle ended, in the words that status, metrics and logs share."""

from dataclasses import dataclass, field

from reconciler.errors import LeaseLost
from reconciler.loop.apply import Applied
from reconciler.loop.look import Look
from reconciler.model import Desired, Instant, Outcome, Probe, StepKind
from reconciler.plan.rows import desired_number
from reconciler.plan.settle import Settlement
from reconciler.plan.steps import Plan
from reconciler.status.recorder import Counts


@dataclass(frozen=True, slots=True)
class CycleReport:
    """
    What a cycle saw, did and left.

    `look` is None when it got no answer, and when nothing has changed since
    the last one, which left nothing to do; `seen` tells the two apart.
    """

    outcome: Outcome
    error: str | None = None
    look: Look | None = None
    seen: Probe | None = None  # how long the node has run, and how many users each inbound must have now
    applied: Applied = field(default_factory=Applied)
    counts: Counts | None = None
    boot_at: Instant | None = None
    listing_seconds: float = 0.0  # for how long the node was busy, or we were waiting
    applied_at: Instant = 0.0

    @property
    def removals_frozen(self) -> bool:
        """Whether the database's clock was not believed."""
        return self.look is not None and self.look.removals_frozen


@dataclass(frozen=True, slots=True)
class KeyedReport:
    """What a cycle for a few keys did; `doubt` when a full one has to look."""

    desired: Desired
    plan: Plan
    applied: Applied
    applied_at: Instant
    more_active: int = 0
    more_desired: int = 0

    @property
    def doubt(self) -> bool:
        """Whether the node did not do all that was asked of it."""
        return bool(self.applied.failures) or self.applied.broken is not None


def expected(look: Look, applied: Applied) -> Probe:
    """Return what the next probe should find."""
    probe = look.observation.probe
    users = {tag: number + applied.growth(tag) for tag, number in probe.users.items()}
    return Probe(probe.uptime_seconds, users)


def counts(look: Look, settlement: Settlement) -> Counts:
    """Count what the node holds after the steps of a cycle."""
    plan = look.plan
    return Counts(
        active=settlement.active_users,
        desired=desired_number(look.desired.rows),
        foreign=plan.foreign,
        orphans=len(plan.orphans),
        held=len({step.key_id for step in plan.held if step.kind is StepKind.REMOVE}),
    )


def judge(look: Look, applied: Applied) -> Outcome:
    """Return how a cycle ended: of all that applies, what matters most."""
    plan = look.plan
    if isinstance(applied.broken, LeaseLost):
        return Outcome.FAILED
    if applied.broken is not None:
        return Outcome.UNREACHABLE
    refused = plan.unlisted or applied.failures or not look.desired.inbounds
    if refused or any(conflict.desired for conflict in plan.conflicts):
        return Outcome.REJECTED
    if plan.held or any(step not in applied.done for step in plan.steps):
        return Outcome.HELD
    return Outcome.CHANGED if applied.done else Outcome.CONVERGED


def reason(look: Look, applied: Applied) -> str | None:
    """Return the reason that an operator can act on, without any credential; None when all is well."""
    if applied.broken is not None:
        return str(applied.broken)
    if not look.desired.inbounds:
        return "the node has no inbound"
    for tag in look.plan.unlisted:
        return f"inbound {tag!r}: {look.observation.refusals.get(tag, 'not listed yet')}"
    for step, failure in applied.failures:
        return f"inbound {step.inbound!r}: {failure.detail}"
    for conflict in look.plan.conflicts:
        if conflict.desired:
            return (
                f"inbound {conflict.inbound!r}: key {conflict.key_id} shares its UUID with {conflict.name!r}"
            )
    return None
