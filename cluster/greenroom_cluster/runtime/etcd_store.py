"""A coordinator's part in etcd: the I/O around `Leadership`, and the store of a coordinator that leads."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
import trio

from greenroom.cluster_map import ClusterMap
from greenroom.deadlines import NEVER_NS
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.gateway import EtcdAwayError, Range
from greenroom_cluster.coordination.etcd.leadership import Leadership, LeadershipEffect, LeadershipInput
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.etcd_options import EtcdOptions
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.map_store import Kept, begun
from greenroom_cluster.runtime.tasks import open_tasks

_AGAIN_SECONDS = 0.5
_FAREWELL_SECONDS = 1.0
_log = structlog.get_logger(__name__)
# Whoever stands by asks several times a second.
_limited_log = LimitedLog(structlog.get_logger(__name__), repeat_seconds=60)


class Candidate:
    """Leads whenever nobody else does. A store only within `leading`."""

    vouched = True

    def __init__(self, client: EtcdClient, leadership: Leadership) -> None:
        self._client = client
        self._leadership = leadership
        # Goes on while a coordinator that ends writes the last of its marks.
        self._scope = trio.CancelScope(shield=True)
        self._tasks: trio.Nursery | None = None
        self._wake = trio.Event()
        self._led: ls.Lead | None = None
        self._led_event = trio.Event()
        self._term: trio.CancelScope | None = None
        self._saved = trio.Event()

    # --- what leads --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def leading(self, options: ClusterOptions) -> AsyncIterator[Kept]:
        """Wait until this coordinator leads; the body is cancelled, and left, once it no longer does.

        Raises UsageError if the options differ from the cluster that is stored.
        """
        with trio.CancelScope() as self._term:
            while self._led is None:
                await self._led_event.wait()
            first = begun(self._led.map, options)
            if first is not self._led.map:
                await self.save(first, vouched=True)
            yield Kept(self, first, self._led.marks)
        self._term = None

    async def save(self, cluster_map: ClusterMap, *, vouched: bool) -> None:
        """Replace the map; returns once it is in etcd, or is cancelled because another one leads."""
        del vouched
        await self._save(self._leadership.save(now_ns(), cluster_map))

    async def save_marks(self, marks: Mapping[bytes, int]) -> None:
        """Replace the marks, as `save` does the map."""
        if self._leadership.leads:
            await self._save(self._leadership.save_marks(now_ns(), marks))

    async def _save(self, effects: list[LeadershipEffect]) -> None:
        saved = self._saved = trio.Event()
        self._perform(effects)
        await saved.wait()

    def vouch(self) -> None:
        """Do nothing: what etcd has is the newest."""

    def close(self) -> None:
        """Do nothing: the next term may be this one's again."""

    # --- what drives it ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take part until `stop`; then let others lead at once."""
        with self._scope:
            async with open_tasks() as self._tasks:
                self._tasks.start_soon(self._watch)
                await self._step_forever()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL_SECONDS):
            for effect in self._leadership.end(now_ns()):
                await self._revoke(effect)

    async def _step_forever(self) -> None:
        while True:
            self._wake = trio.Event()
            self._perform(self._leadership.step(now_ns()))
            due = self._leadership.next_deadline()
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
                async with self._client.watch(Range(self._leadership.leader_key), 0) as parts:
                    async for part in parts:
                        if part.events:
                            self._step(ls.Changed())
            except EtcdAwayError as error:
                _limited_log.warning("etcd_away", reason=str(error))
            await trio.sleep(_AGAIN_SECONDS)

    def _step(self, happened: LeadershipInput) -> None:
        """Take in what has happened; what is due may be another time then."""
        self._perform(self._leadership.step(now_ns(), happened))
        self._wake.set()

    def _perform(self, effects: list[LeadershipEffect]) -> None:
        for effect in effects:
            match effect:
                case ls.Lead():
                    self._led = effect
                    self._led_event.set()
                case ls.Resign(reason=reason):
                    _log.warning("coordinator_resigns", reason=reason)
                    self._led, self._led_event = None, trio.Event()
                    if self._term is not None:
                        self._term.cancel()
                case ls.Saved():
                    self._saved.set()
                case ls.Revoke():
                    self._start(self._revoke, effect)
                case ls.Grant() | ls.Renew() | ls.Transact():
                    self._start(self._ask, effect)

    def _start(self, ask: Callable[..., Awaitable[None]], effect: LeadershipEffect) -> None:
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
        self._step(happened)

    async def _revoke(self, effect: ls.Revoke) -> None:
        try:
            await self._client.revoke(effect.lease)
        except EtcdAwayError as error:
            _limited_log.warning("etcd_away", reason=str(error))


@asynccontextmanager
async def open_candidate(options: EtcdOptions, cluster: str, name: str) -> AsyncIterator[Candidate]:
    """Take part in the election of a cluster's coordinator. Raises UsageError, EtcdRefusedError."""
    settings = options.settings(cluster)
    async with EtcdClient(settings, options.tls()) as client, open_tasks() as nursery:
        candidate = Candidate(client, Leadership(settings.prefix, name, now_ns()))
        nursery.start_soon(candidate.run)
        try:
            yield candidate
        finally:
            candidate.stop()
