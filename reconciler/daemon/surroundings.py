"""What the loops need of the world around them, made once by the composition root."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from reconciler.config import Config
from reconciler.daemon.placing import Placing
from reconciler.daemon.rescue import Rescue
from reconciler.desired.reader import DesiredReader
from reconciler.desired.timer import Timer
from reconciler.errors import StoreError
from reconciler.logs import Repeats
from reconciler.loop.traffic import Turns
from reconciler.model import Node
from reconciler.node.port import NodePort
from reconciler.status.board import Board
from reconciler.status.health import Health
from reconciler.status.lease import Leases
from reconciler.status.metrics import Metrics
from reconciler.status.periods import Periods
from reconciler.status.recorder import Recorder
from reconciler.status.usage import Usage


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every loop needs of the world around it; `chance` is uniform in [-1, 1]."""

    config: Callable[[], Config]
    check_database: Callable[[], Awaitable[None]]
    why: Callable[[StoreError], Awaitable[str]]  # the reason that the pool does not tell
    reader: DesiredReader
    recorder: Recorder
    usage: Usage
    turns: Turns
    periods: Periods
    leases: Leases
    placing: Placing
    rescue: Rescue
    timer: Timer
    metrics: Metrics
    health: Health
    board: Board
    slots: asyncio.Semaphore
    port: Callable[[Node], NodePort]
    clock: Callable[[], float]
    wall: Callable[[], float]
    chance: Callable[[], float]
    stopping: asyncio.Event
    store_repeats: Repeats = field(default_factory=Repeats)
    """Cycles that failed for the database's sake, of all nodes together."""
