"""How the loops of this daemon stand: in a line for systemd, and beside the checks of health."""

from collections import Counter
from collections.abc import Iterable, Mapping

from reconciler.loop.cadence import NodeLoop
from reconciler.model import Outcome

FROZEN = "removals frozen"
_TROUBLES = (Outcome.FAILED, Outcome.UNREACHABLE, Outcome.REJECTED, Outcome.HELD)


def words(loops: Iterable[NodeLoop], *, database_up: bool) -> str:
    """Tell in a line how the fleet is."""
    outcomes = Counter(loop.outcome for loop in loops)
    well = outcomes[Outcome.CONVERGED] + outcomes[Outcome.CHANGED]
    line = f"{well}/{outcomes.total()} nodes converged"
    troubles = [f"{outcomes[outcome]} {outcome}" for outcome in _TROUBLES if outcomes[outcome]]
    if not database_up:
        troubles.append("database out of reach")
    return ", ".join([line, *troubles])


def waiting(loops: Mapping[str, NodeLoop]) -> dict[str, list[str]]:
    """Return what waits for an operator, each with the nodes where it does, which may be none."""
    return {
        FROZEN: [name for name, loop in loops.items() if loop.reporter.is_frozen()],
        "steps held": [name for name, loop in loops.items() if loop.reporter.is_holding()],
        **{
            f"node {it}": [name for name, loop in loops.items() if loop.outcome is it] for it in _TROUBLES[:3]
        },
    }
