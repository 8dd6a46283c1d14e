"""Clients that watch sessions for their ends, beside what callers do to these."""

from functools import partial

from greenroom.endings import Ended
from simulations.checks.endings import EndingOracle, Ends
from simulations.checks.oracles import Oracles
from simulations.cluster.clients import ClientProcess
from simulations.cluster.marks import PoisonBook
from simulations.cluster.stage import TENANT, Stage
from simulations.kernel.timeline import SECOND
from simulations.workload.callers import Session, Workload

LOOK_NS = SECOND // 20
AGAIN_SECONDS = (0.005, 0.05, 0.2)


class Watch:
    """One watch of a client: what was known when it began."""

    __slots__ = ("client", "ends", "key", "position", "session", "shard", "was_there")

    def __init__(self, client: ClientProcess, session: Session, shard: int, key: bytes, ends: Ends) -> None:
        self.client = client
        self.session = session
        self.shard = shard
        self.key = key
        self.ends = ends
        self.position = ends.position
        self.was_there = ends.is_there(key)


class Watching:
    """All clients of one world that watch: each as many sessions as the plan says, in turn."""

    def __init__(self, stage: Stage, workload: Workload, oracles: Oracles, book: PoisonBook) -> None:
        self._stage = stage
        self._workload = workload
        self._oracle = EndingOracle(oracles, book)
        self._open: dict[Watch, None] = {}

    def start(self) -> None:
        """Have every client that watches begin."""
        for index, count in enumerate(self._stage.plan.watched):
            for number in range(count if index < self._stage.plan.clients else 0):
                self._begin(index, number)

    def _begin(self, index: int, number: int) -> None:
        stage = self._stage
        if stage.healing:
            return
        client = stage.clients[index]
        if not client.alive:
            stage.timeline.after(LOOK_NS, self._begin, index, number)
            return
        session = self._workload.session_of(client, number)
        digest = self._workload.digest(session, session.keys[-1])
        key = digest + TENANT.encode() if client.tenant else digest
        shard = stage.shard_at(session.point)
        watch = Watch(client, session, shard, key, self._oracle.of(shard))
        for other in self._open:
            # One registration serves all of a client: what was told to the first is told to those who join.
            if other.client is client and other.key == key:
                watch.ends, watch.position, watch.was_there = other.ends, other.position, other.was_there
                break
        self._open[watch] = None
        client.on_gone = partial(self._gone, client, index)
        client.watch(session.point, digest, partial(self._told, watch, index, number))

    def _told(self, watch: Watch, index: int, number: int, outcome: object) -> None:
        stage = self._stage
        if self._open.pop(watch, self) is not None:
            stage.violate("endings", f"{watch.client.name} was told twice of {watch.session.name}")
            return
        if not isinstance(outcome, Ended):
            stage.violate("endings", f"{watch.client.name} will not be told: {outcome}")
            return
        stage.network.happened[f"told of an end: {outcome.reason}"] += 1
        if self._is_wrong(watch):
            told = (
                f"{watch.client.name} was told of the {outcome.reason} of {watch.session.name}, which lives"
            )
            stage.violate("endings", told)
        pause = stage.random.choice(AGAIN_SECONDS)
        watch.client.later(pause, self._begin, index, number)

    def _is_wrong(self, watch: Watch) -> bool:
        """Whether the session has lived on since the watch began."""
        ends = self._oracle.of(watch.shard)
        if ends is not watch.ends or not self._oracle.is_known(watch.shard):
            return False
        return watch.was_there and not ends.has_ended_since(watch.key, watch.position)

    def _gone(self, client: ClientProcess, index: int) -> None:
        """A client has died: its successor watches the same."""
        mine = [watch for watch in self._open if watch.client is client]
        for watch in mine:
            del self._open[watch]
            number = self._workload.sessions.index(watch.session)
            self._stage.timeline.after(LOOK_NS, self._begin, index, number)

    def untold(self) -> list[str]:
        """Return who has yet to be told of which session."""
        return [
            f"{watch.client.name} of {watch.session.name}"
            for watch in self._open
            if watch.client.alive
            and self._oracle.is_known(watch.shard)
            and not self._oracle.of(watch.shard).is_there(watch.key)
        ]
