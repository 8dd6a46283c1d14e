"""A coordinator's part in etcd: the I/O around `Candidacy`, and the store of a coordinator that leads."""

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from greenroom.cluster_map import CLUSTER_IDENTITY_BYTES, ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.etcd import candidacy as ca
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.candidacy import Candidacy, CandidacyEffect
from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.gateway import (
    EtcdAwayError,
    EtcdRefusedError,
    LeaseOverError,
    Range,
)
from greenroom_cluster.coordination.etcd.leadership import Leadership, LeadershipInput
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.map_store import Kept
from greenroom_cluster.runtime.tasks import open_tasks

_AGAIN_SECONDS = 0.5
_REFUSED_SECONDS = 2.0
"""Checking a password costs etcd much, and who mends what it refuses takes longer."""
_FAREWELL_SECONDS = 1.0
_log = structlog.get_logger(__name__)
# Whoever stands by asks several times a second.
_limited_log = LimitedLog(structlog.get_logger(__name__), repeat_seconds=60)


class TermStore:
    """The store of one term."""

    vouched = True

    def __init__(self, candidate: "Candidate", term: int) -> None:
        self._candidate = candidate
        self._term = term

    async def save(self, cluster_map: ClusterMap, *, vouched: bool) -> None:
        """Replace the map; returns once it is in etcd, or is cancelled because the term is over."""
        del vouched
        await self._candidate.keep(self._term, cluster_map)

    async def save_marks(self, marks: Mapping[bytes, int]) -> None:
        """Replace the marks, as `save` does the map; does nothing once the term is over."""
        if self._candidate.serves(self._term):
            await self._candidate.keep(self._term, marks)

    def vouch(self) -> None:
        """Do nothing: what etcd has is the newest."""

    def close(self) -> None:
        """Do nothing: the next term may be this one's again."""


class Candidate:
    """Leads whenever nobody else does."""

    def __init__(self, client: EtcdClient, candidacy: Candidacy) -> None:
        self._client = client
        self._candidacy = candidacy
        # Goes on while a coordinator that ends writes the last of its marks.
        self._scope = trio.CancelScope(shield=True)
        self._tasks: trio.Nursery | None = None
        self._wake = trio.Event()
        self._begun: ca.Begin | None = None
        self._begun_event = trio.Event()
        self._term: trio.CancelScope | None = None
        self.on_cease: Callable[[ca.Cease], None] = lambda _: None
        """Called before the body of `leading` is cancelled."""
        self._numbers = itertools.count(1)
        self._kept: dict[int, trio.Event] = {}

    # --- what leads --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[Kept]:
        """Wait until this coordinator leads; the body is cancelled, and left, once it no longer does."""
        while self._begun is None:
            await self._begun_event.wait()
        begun = self._begun
        with trio.CancelScope() as self._term:
            yield Kept(TermStore(self, begun.term), begun.map, begun.marks)
        self._term = None

    def serves(self, term: int) -> bool:
        """Whether that term goes on."""
        return self._candidacy.serves(term)

    async def keep(self, term: int, what: ClusterMap | Mapping[bytes, int]) -> None:
        """Return once that is in etcd; never, if the term is over before."""
        number = next(self._numbers)
        kept = self._kept[number] = trio.Event()
        try:
            self._perform(self._candidacy.keep(now_ns(), term, number, what))
            await kept.wait()
        finally:
            del self._kept[number]

    # --- what drives it ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until `stop`; then let others lead at once."""
        with self._scope:
            async with open_tasks() as self._tasks:
                self._tasks.start_soon(self._watch)
                await self._step_forever()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL_SECONDS):
            for effect in self._candidacy.end(now_ns()):
                await self._revoke(effect)

    async def _step_forever(self) -> None:
        while True:
            self._wake = trio.Event()
            self._perform(self._candidacy.step(now_ns()))
            due = self._candidacy.next_deadline()
            seconds = 60.0 if due >= NEVER_NS else max(0.001, (due - now_ns()) / 1e9)
            with trio.move_on_after(seconds):
                await self._wake.wait()

    def stop(self) -> None:
        """Take part no longer."""
        self._scope.cancel()

    async def _watch(self) -> None:
        """Notice at once when the leader goes, as long as etcd tells: else looking now and then does it."""
        while True:
            try:
                async with self._client.watch(Range(self._candidacy.leader_key), 0) as parts:
                    async for part in parts:
                        if part.events:
                            self._step(ls.Changed())
            except EtcdAwayError as error:
                _limited_log.warning("etcd_away", reason=str(error))
            except EtcdRefusedError as error:
                await _refused(error)
            await trio.sleep(_AGAIN_SECONDS)

    def _step(self, happened: LeadershipInput) -> None:
        """Take in what has happened; what is due may be another time then."""
        self._perform(self._candidacy.step(now_ns(), happened))
        self._wake.set()

    def _perform(self, effects: Sequence[CandidacyEffect]) -> None:
        for effect in effects:
            match effect:
                case ca.Begin():
                    self._begun = effect
                    self._begun_event.set()
                case ca.Cease(reason=reason):
                    _log.warning("coordinator_resigns", reason=reason)
                    self.on_cease(effect)
                    if self._begun is not None:
                        self._begun, self._begun_event = None, trio.Event()
                    if self._term is not None:
                        self._term.cancel()
                case ca.Kept(number=number) if number in self._kept:
                    self._kept[number].set()
                case ls.Revoke():
                    self._start(self._revoke, effect)
                case ls.Grant() | ls.Renew() | ls.Transact():
                    self._start(self._ask, effect)

    def _start(self, ask: Callable[..., Awaitable[None]], effect: ca.Request) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(ask, effect)

    async def _ask(self, effect: ls.Grant | ls.Renew | ls.Transact) -> None:
        happened: LeadershipInput
        try:
            match effect:
                case ls.Grant(number=number, ttl_seconds=ttl_seconds):
                    given = await self._client.grant(ttl_seconds)
                    happened = ls.Leased(number, given.id, given.ttl_seconds)
                case ls.Renew(number=number, lease=lease):
                    kept = await self._client.keep_alive(lease)
                    happened = ls.Leased(number, lease, kept.ttl_seconds)
                case ls.Transact(number=number, compares=compares, success=success, failure=failure):
                    happened = ls.Answered(number, await self._client.transact(compares, success, failure))
        except EtcdAwayError as error:
            _limited_log.warning("etcd_away", reason=str(error))
            happened = ls.Failed(effect.number)
        except LeaseOverError:
            # Whoever is paused for long between asking for a lease and using it has lost it.
            happened = ls.Failed(effect.number)
        except EtcdRefusedError as error:
            await _refused(error)
            happened = ls.Failed(effect.number)
        self._step(happened)

    async def _revoke(self, effect: ls.Revoke) -> None:
        try:
            await self._client.revoke(effect.lease)
        except EtcdAwayError as error:
            _limited_log.warning("etcd_away", reason=str(error))


async def _refused(error: EtcdRefusedError) -> None:
    """Say what etcd will not do, and wait a little.

    It did before, or nobody could ask it when this coordinator was started. So somebody can mend it there,
    and then a coordinator is needed: it stands by until then.
    """
    _limited_log.error("etcd_refused", reason=str(error))
    await trio.sleep(_REFUSED_SECONDS)


@asynccontextmanager
async def open_candidate(
    options: EtcdOptions, cluster: ClusterOptions, name: str
) -> AsyncIterator[Candidate]:
    """Take part in the election of a cluster's coordinator.

    Raises UsageError, also if the options differ from the cluster that is stored.
    """
    settings = options.settings(cluster.cluster)
    async with (
        EtcdClient(settings, options.tls(), password=options.password) as client,
        open_tasks() as nursery,
    ):
        leadership = Leadership(settings.prefix, name, now_ns())
        candidate = Candidate(client, Candidacy(leadership, cluster, os.urandom(CLUSTER_IDENTITY_BYTES)))
        nursery.start_soon(candidate.run)
        try:
            yield candidate
        finally:
            candidate.stop()
