"""A coordinator on etcd: a shell around the real `Candidacy`, which serves whenever it leads."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination import service as fx
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.etcd import candidacy as ca
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.candidacy import Candidacy, CandidacyEffect
from greenroom_cluster.coordination.etcd.gateway import GivenLease, Transacted, transaction_body
from greenroom_cluster.coordination.etcd.leadership import Leadership, LeadershipInput
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.coordination.service import CoordinationService
from greenroom_cluster.planning.controller import ControllerSettings
from simulations.cluster.connections import Codec
from simulations.cluster.etcd_client import EtcdClient
from simulations.cluster.serving import Coordinating, MapWatcher, Server
from simulations.kernel.network import Network
from simulations.kernel.timeline import MILLISECOND, Machine

PREFIX = "/greenroom/simulated"
_REST_SECONDS = 2.0
_FAREWELL_SECONDS = 1.0


class CandidateProcess(Coordinating):
    """One run of a coordinator on etcd; `addresses` are those of the members.

    `crash_at_write` ("before" or "after" it was sent) kills it when it next writes a map.
    """

    keeps_soon = False

    def __init__(
        self,
        network: Network,
        machine: Machine,
        random: Random,
        addresses: Sequence[str],
        options: ClusterOptions,
        settings: CoordinatorSettings,
    ) -> None:
        super().__init__(network, machine, machine.name, random)
        leadership = Leadership(PREFIX, self.address, machine.now_ns())
        self.candidacy = Candidacy(leadership, options, random.randbytes(CLUSTER_IDENTITY_BYTES))
        self._client = EtcdClient(self, addresses, self._failed)
        self._settings = settings
        self._codec: Codec | None = None
        self._term = 0
        self._numbers = 0
        self._keeping: dict[int, Callable[[], None]] = {}
        self._due_at = -1

    @property
    def serves(self) -> bool:
        """Whether it takes itself for the one that leads."""
        return self.alive and self.server is not None

    def run(self, codec: Codec, oracles: MapWatcher, identity: bytes) -> None:
        """Take part. The identity of a server is another one in each term."""
        del identity
        self._codec, self.oracles = codec, oracles
        self._client.watch(self.candidacy.leader_key, lambda: self._step(ls.Changed()))
        self._step()

    def leave(self) -> None:
        """End in order (SIGTERM): keep the last marks, then let others lead at once."""
        server, self.server = self.server, None
        rest = [] if server is None else server.service.end()
        if server is not None:
            server.end()
        if not rest:
            self._farewell()
        for effect in rest:
            self._keep(effect.marks, self._farewell)
        self.later(_REST_SECONDS, self._farewell)

    def _farewell(self) -> None:
        for revoke in self.candidacy.end(self.machine.now_ns()):
            self._client.revoke(revoke.lease)
        self.later(_FAREWELL_SECONDS, self.kill)

    # --- stepping ----------------------------------------------------------------------------------------

    def _step(self, happened: LeadershipInput | None = None) -> None:
        if not self.alive:
            return
        try:
            effects = self.candidacy.step(self.machine.now_ns(), happened)
        except Exception as error:  # noqa: BLE001  whatever it is, it is judged
            self._failed(error)
            return
        self._perform(effects)
        self._arm()

    def _failed(self, error: Exception) -> None:
        if self.oracles is not None:
            self.oracles.coordinator_failed(self, error)
        self.kill()

    def _perform(self, effects: Sequence[CandidacyEffect]) -> None:
        for effect in effects:
            if self.alive:
                self._do(effect)

    def _do(self, effect: CandidacyEffect) -> None:
        client = self._client
        match effect:
            case ca.Begin():
                # Another task serves, and has its turn after this one.
                self.timeline.after(0, self.tell, 0, self._begin, effect)
            case ca.Cease():
                self._cease()
            case ca.Kept(number=number):
                self._keeping.pop(number)()
            case ls.Grant(number=number, ttl_seconds=ttl_seconds):
                client.grant(ttl_seconds, partial(self._leased, number))
            case ls.Renew(number=number, lease=lease):
                client.keep_alive(lease, partial(self._leased, number))
            case ls.Revoke(lease=lease):
                client.revoke(lease)
            case ls.Transact():
                self._transact(effect)

    def _leased(self, number: int, given: GivenLease | None) -> None:
        failed = ls.Failed(number)
        self._step(failed if given is None else ls.Leased(number, given.id, given.ttl_seconds))

    def _answered(self, number: int, answer: Transacted | None) -> None:
        self._step(ls.Failed(number) if answer is None else ls.Answered(number, answer))

    def _transact(self, asked: ls.Transact) -> None:
        body = transaction_body(asked.compares, asked.success, asked.failure)
        self._client.transact(body, partial(self._answered, asked.number))

    def _arm(self) -> None:
        due = self.candidacy.next_deadline()
        if due >= NEVER_NS:
            return
        at = max(self.machine.moment(due), self.timeline.now + MILLISECOND)
        if self._due_at <= self.timeline.now or at < self._due_at:
            self._due_at = at
            self.timeline.at(at, self._due, at)

    def _due(self, at: int) -> None:
        if at == self._due_at:
            self._due_at = -1
            self.tell(0, self._step)

    # --- serving -----------------------------------------------------------------------------------------

    def _begin(self, begin: ca.Begin) -> None:
        assert self._codec is not None
        if not self.candidacy.serves(begin.term):
            return
        self._term = begin.term
        self.network.happened["coordinator began to lead"] += 1
        service = CoordinationService(
            begin.map,
            self._settings,
            ControllerSettings(),
            self.machine.now_ns(),
            self.machine.wall_us() // 1000,
            proven=True,
            marks=begin.marks,
        )
        self.server = Server(self, self._codec, service, self, self.random.randbytes(16))
        self.server.begin()

    def _cease(self) -> None:
        server, self.server = self.server, None
        self._keeping.clear()
        if server is not None:
            self.network.happened["coordinator resigned"] += 1
            server.end()

    def persist(self, written: fx.Persist, done: Callable[[], None]) -> None:
        """Keep a map in etcd."""
        crash, self.crash_at_write = self.crash_at_write, ""
        if crash:
            self.network.happened[f"coordinator crash {crash} persisting"] += 1
        if crash != "before":
            self._keep(written.map, done)
        if crash:
            self.kill()

    def keep_marks(self, marks: dict[bytes, int], done: Callable[[], None]) -> bool:
        """Keep marks in etcd."""
        self._keep(marks, done)
        return False

    def vouch(self) -> None:
        """Do nothing: what etcd has is the newest."""

    def _keep(self, what: ClusterMap | dict[bytes, int], done: Callable[[], None]) -> None:
        self._numbers += 1
        self._keeping[self._numbers] = done
        self._perform(self.candidacy.keep(self.machine.now_ns(), self._term, self._numbers, what))
        self._arm()
