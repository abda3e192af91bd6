"""Whether keys go to other nodes by themselves, because theirs does not answer any more; and how many."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Silence:
    """Of the nodes that are worked on, how many there are, and how many do not answer."""

    nodes: int
    silent: int

    @property
    def ours(self) -> bool:
        """Whether so many are silent that we are rather the broken one."""
        return 2 * self.silent >= self.nodes


def lost(silent_seconds: Mapping[int, float], after_seconds: float, *silences: Silence) -> list[int]:
    """
    Return the nodes that keys are to be moved off, those first that are silent for longest.

    `silent_seconds` is for how long each node was seen not to answer. None is
    lost while any of `silences` says that we are rather the broken one, and
    none ever when `after_seconds` is 0.
    """
    if not after_seconds or any(silence.ours for silence in silences):
        return []
    found = [node_id for node_id, seconds in silent_seconds.items() if seconds >= after_seconds]
    return sorted(found, key=lambda node_id: (-silent_seconds[node_id], node_id))


def allowance(keys: int, share: float, moved: int) -> int:
    """Return how many of a pool's `keys` may still be moved in this hour, of which `moved` were already."""
    return max(0, int(keys * share) - moved)
