"""Which nodes this daemon works on: it holds their leases, and runs a loop for each."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from reconciler.daemon.standing import FROZEN, waiting, words
from reconciler.daemon.surroundings import Surroundings
from reconciler.daemon.work import PATIENCE_SECONDS, Work, begin
from reconciler.desired.bells import NOWHERE, Bell
from reconciler.errors import RightsMissing, SchemaMismatch, StoreError
from reconciler.logs import Repeats
from reconciler.loop.trust import ClockTrust
from reconciler.loop.waiting import first
from reconciler.model import Node, NodeState, Owner
from reconciler.status.metrics import Refusal

log = structlog.get_logger()

TICK_SECONDS = 1.0
"""How often nodes are looked for and keys are placed."""

FLEET = "the fleet"
"""What the loop of this module is called in health; no node can be named so."""

FINISH_SECONDS = 7.0
"""What loops get to end their current calls when the daemon stops."""


@dataclass(slots=True)
class Fleet:
    """Keeps one loop running for every node that is ours to work on."""

    around: Surroundings
    nodes: dict[int, Node] = field(default_factory=dict)  # all that are not disabled, held by us or not
    listening: bool = False  # whether bells of the database reach us
    _running: dict[int, Work] = field(default_factory=dict)
    _repeats: Repeats = field(default_factory=Repeats)
    _owner: Owner | None = None
    _renew_at: float = 0.0
    _place_all_at: float = 0.0
    _states: dict[int, NodeState] = field(default_factory=dict)
    _database_up: bool = False
    _ticked: bool = False
    _worked: bool = False
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _look_around: bool = False
    _to_place: set[int] = field(default_factory=set)
    _trust: ClockTrust = field(init=False)

    def __post_init__(self) -> None:
        self._trust = ClockTrust(self.around.config().guard.clock_tolerance_seconds)

    @property
    def tried(self) -> bool:
        """Whether everything was tried once: the database, and every node that we hold."""
        return self._ticked and all(running.loop.tried for running in self._running.values())

    @property
    def words(self) -> str:
        """Tell in a line how the fleet is."""
        return words((running.loop for running in self._running.values()), database_up=self._database_up)

    async def run(self) -> None:
        """
        Tick until stopping; then let the loops finish, and let go of the leases.

        Raises SchemaMismatch and RightsMissing when the first contact meets them.
        """
        around = self.around
        around.health.expect(FLEET, PATIENCE_SECONDS, around.clock())
        try:
            while not around.stopping.is_set():
                await self._tried(self._tick)
                self._ticked = True
                around.health.beat(FLEET, around.clock())
                await self._answer_bells(around.clock() + TICK_SECONDS)
        finally:
            await self._finish()

    def ring(self, bell: Bell) -> None:
        """Look where the bell says, as soon as may be."""
        if bell.everywhere or bell.nodes:
            self._look_around = True
        if bell.everywhere or NOWHERE in bell.nodes:
            self._place_all_at = 0.0
        for node_id in self._running if bell.everywhere else self._running.keys() & bell.nodes:
            self._running[node_id].loop.ring()
        for node_id in self._running.keys() & bell.keys.keys():
            self._running[node_id].loop.ring(bell.keys[node_id])
        self._to_place |= bell.keys.get(NOWHERE, frozenset())
        if self._look_around or self._to_place:
            self._woken.set()

    async def _answer_bells(self, until: float) -> None:
        """Place keys that rang, until the next tick is due or a bell asks for it."""
        around = self.around
        while not (around.stopping.is_set() or self._look_around) and around.clock() < until:
            if not self._to_place:
                await first((around.stopping, self._woken), until - around.clock())
                self._woken.clear()
            if self._to_place and not self._look_around:
                await self._tried(self._place)

    async def _place(self) -> None:
        """Place keys that rang; who waits for them need not wait for the bell of what was just written."""
        keys, self._to_place = self._to_place, set()
        self.ring(Bell(keys=await self.around.placing.place(keys)))

    def _unheard(self, nodes: Collection[int]) -> None:
        """Ring the nodes of placements that we have just written, where no bell of theirs reaches us."""
        if nodes and not self.listening:
            self.ring(Bell(nodes=frozenset(nodes)))

    async def watch_clock(self) -> None:
        """Ring for what the clock alone changes, for ever."""
        around = self.around
        while True:
            pause = TICK_SECONDS / 2
            with suppress(StoreError):  # the tick tells of it, and what fell due meanwhile is not forgotten
                due = await around.timer.due()
                self._trust.believes(due.now, around.clock())
                self.ring(due.bell)
                if due.next is not None:
                    pause = min(pause, max(due.next - due.now, 0.01))
            await asyncio.sleep(pause)

    async def _tried(self, work: Callable[[], Awaitable[None]]) -> None:
        around = self.around
        try:
            await work()
        except StoreError as error:
            if not self._worked and isinstance(error, SchemaMismatch | RightsMissing):
                raise  # waiting would mend nothing
            self._database_up = False
            around.metrics.database_up(up=False)
            swallowed = self._repeats.failed("database", str(error), around.clock())
            if swallowed is not None:
                reason = await around.why(error)
                around.health.note("database out of reach", reason)
                log.error("database out of reach; nodes stay as they are", reason=reason, repeats=swallowed)
            return
        self._worked = True
        self._note()
        self._database_up = True
        around.metrics.database_up(up=True)
        around.health.database_read(around.clock())
        around.health.clear("database out of reach")
        if (swallowed := self._repeats.recovered("database")) is not None:
            log.warning("database is back", failures=swallowed)
            around.store_repeats.recovered("cycle failed")

    def _note(self) -> None:
        """Show each node's state, and beside the checks of health what waits for an operator."""
        for running in self._running.values():
            self.around.metrics.node_state(running.node.name, running.node.state)
        loops = {running.node.name: running.loop for running in self._running.values()}
        waits = waiting(loops)
        for what, nodes in waits.items():
            self.around.health.note_nodes(what, nodes)
        self.around.metrics.source_refused(*([Refusal.CLOCK] if waits[FROZEN] else []))

    async def _tick(self) -> None:
        around, rung = self.around, self._look_around
        self._look_around = False
        if self._owner is None:
            await self.around.check_database()
            self._owner = await self.around.reader.owner()
        fleet = await self.around.reader.fleet()
        known, self._states = self._states, {node.node_id: node.state for node in fleet}
        self.nodes = {node.node_id: node for node in fleet if node.state is not NodeState.DISABLED}
        await self._keep_leases()
        await self._match_loops(self._owner)
        if known != self._states or not around.config().database.notify:
            self._place_all_at = 0.0
        seen = {node_id: (it.node, it.loop.outcome) for node_id, it in self._running.items()}
        self._unheard(await around.rescue.look(seen))
        due = around.clock() >= self._place_all_at
        self._unheard(await around.placing.let_go(rung=rung or due))
        if due or await around.placing.should_look():
            await self._place_all()
        elif self._to_place:
            await self._place()
        await around.placing.look_ahead(rung=rung or due)

    async def _place_all(self) -> None:
        """Place every key without a node; it costs the more the more keys there are, so bells name most."""
        around = self.around
        # Said before: a bell that rings meanwhile asks for one more look.
        self._place_all_at = around.clock() + around.config().cycle.full_interval_seconds
        self._to_place.clear()
        try:
            self._unheard(await around.placing.place(None))
        except StoreError:
            self._place_all_at = 0.0
            raise

    @property
    def held(self) -> int:
        """How many nodes this daemon works on."""
        return len(self._running)

    async def _keep_leases(self) -> None:
        leases, now = self.around.leases, self.around.clock()
        unwanted = [node_id for node_id in leases.held if node_id not in self.nodes]
        for node_id in unwanted:
            await self._end(node_id)
        if unwanted:
            await leases.release(unwanted)
        if now >= self._renew_at or self.nodes.keys() - leases.held.keys():
            await leases.keep({node_id: node.name for node_id, node in self.nodes.items()})
            renew = self.around.config().lease.renew_seconds
            self._renew_at = now + renew * (1 + 0.2 * self.around.chance())

    async def _match_loops(self, owner: Owner) -> None:
        """Run a loop for every node that we hold, and for no other."""
        held = self.around.leases.held
        for node_id, running in [*self._running.items()]:
            node = self.nodes.get(node_id)
            moved = node is not None and node.api != running.node.api
            if node is None or node_id not in held or moved:
                await self._end(node_id)
            elif running.task.done():
                await self._end(node_id, drop=False)
            elif node != running.node:
                running.node = running.loop.cycles.node = node
                running.loop.ring()
        for node_id, lease in held.items():
            if node_id in self.nodes and node_id not in self._running:
                node = self.nodes[node_id]
                self._running[node_id] = begin(self.around, node, lease, owner, self._trust)
                if self._worked:
                    log.info("node taken on", node=node.name, epoch=lease.epoch)

    async def _end(self, node_id: int, *, drop: bool = True) -> None:
        running = self._running.pop(node_id, None)
        if running is None:
            return
        await running.end()
        if drop:
            self.around.metrics.drop_node(running.node.name)

    async def _finish(self) -> None:
        tasks = [task for it in self._running.values() for task in (it.task, it.counting)]
        if tasks:
            await asyncio.wait(tasks, timeout=FINISH_SECONDS)
        for node_id in [*self._running]:
            await self._end(node_id)
        try:
            await self.around.leases.release([*self.around.leases.held])
        except StoreError as error:
            log.warning("leases not released; they run out by themselves", reason=str(error))
