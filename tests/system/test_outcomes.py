"""A write that cannot be acknowledged in time raises the error that is true of it, and says what to do.

"Unavailable" promises that it was not applied and never will be; "unknown" that it may have been. What the
store holds when everything runs again decides: the history has no explanation for a broken promise.
"""

import os
import signal
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from greenroom import ClusterStore, OutcomeUnknownError, UnavailableError, new_session_id
from greenroom.cluster_map import ActorEntry
from simulations.checks.linearizability import Operation, assert_explained
from tests.system.load import LoadSession, Recorder
from tests.system.stage import Probe, SharedCluster, all_exit, loaded, session, stopped, tree

pytestmark = [pytest.mark.system, pytest.mark.trio]

DEADLINE_SECONDS = 1.0
LATE_SECONDS = 1.0
KINDS: dict[str, dict[str, Any]] = {
    "create": {"data": {"new": 1}},
    "get": {},
    "update": {"data": {"updated": 1}},
    "delete": {},
    "patch": {"set": {("patched",): 1}},
    "rotate": {"set": {("rotated",): 1}},
}


class Trial:
    """Operations on sessions of one shard while it cannot do its part."""

    def __init__(self, cluster: SharedCluster, shard: int) -> None:
        self._seeds = ",".join(cluster.cluster.seeds)
        width = 65_536 // cluster.settings.shards
        self.ids = {kind: new_session_id(shard * width + 3) for kind in KINDS}
        self.sessions = {kind: LoadSession(kind, each, own=True) for kind, each in self.ids.items()}
        self.spare_id = new_session_id(shard * width + 3)
        self.history: list[Operation] = []

    def _store(self, deadline_seconds: float) -> ClusterStore:
        return ClusterStore(self._seeds, deadline_seconds=deadline_seconds)

    async def begin(self, store: ClusterStore) -> None:
        """Make every session but the one to be created later."""
        recorder = Recorder(store, "before", self.history)
        for kind, each in self.sessions.items():
            if kind != "create":
                await recorder.call(each, "create", 0, data={"born": kind})
        await store.create(session(self.spare_id))

    async def strive(self, store: ClusterStore) -> dict[str, Operation]:
        """Do one operation of each kind at once; none may outlast the deadline."""
        recorder = Recorder(store, "striving", self.history)
        done: dict[str, Operation] = {}

        async def do(kind: Any) -> None:
            done[kind] = await recorder.call(self.sessions[kind], kind, 0, **KINDS[kind])

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for kind in KINDS:
                nursery.start_soon(do, kind)
            nursery.start_soon(self._complain, store)
        assert trio.current_time() - began < DEADLINE_SECONDS + LATE_SECONDS
        return done

    async def _complain(self, store: ClusterStore) -> None:
        with pytest.raises((OutcomeUnknownError, UnavailableError)) as raised:
            await store.patch(self.spare_id, set={"x": 1}, expect={"y": 2})
        text = str(raised.value)
        assert "raise that option of the store" in text
        if isinstance(raised.value, OutcomeUnknownError):
            assert not raised.value.harmless_to_repeat
            assert "read the session first" in text
        else:
            assert "was not applied" in text
            assert "Repeating it is safe" in text
        assert self.spare_id not in text

    async def judge(self) -> None:
        """Look at everything once it can be looked at, and demand an explanation."""
        async with self._store(10) as store:
            recorder = Recorder(store, "after", self.history)
            for each in self.sessions.values():
                await recorder.call(each, "get", 0)
        assert not any(operation.outcome == "unknown" for operation in self.history[-len(self.sessions) :])
        assert_explained(self.history)

    @asynccontextmanager
    async def impatient(self):
        async with self._store(DEADLINE_SECONDS) as store:
            yield store


async def members_of(cluster: SharedCluster, shard: int) -> Sequence[ActorEntry]:
    """Return the two replicas; a busy machine may have had a slow backup removed, which then comes back."""
    cluster_map = await cluster.until(lambda each: len(each.shards[shard].members) == 2)
    return [cluster_map.actors[member] for member in cluster_map.shards[shard].members]


def refused(operation: Operation) -> bool:
    return operation.outcome == "unknown" or operation.reason == "unavailable"


async def test_both_replicas_paused(cluster: SharedCluster, tmp_path: Path) -> None:
    async with loaded(cluster, tmp_path, errors=True):
        trial = Trial(cluster, shard=5)
        async with trial.impatient() as store:
            await trial.begin(store)
            with stopped(*(actor.pid for actor in await members_of(cluster, 5))):
                done = await trial.strive(store)
        assert all(refused(operation) for operation in done.values())
        assert done["get"].reason == "unavailable", "what only reads is never of unknown outcome"
        await cluster.healthy()
        await trial.judge()


async def test_backup_paused_and_the_coordinator_away(cluster: SharedCluster, tmp_path: Path) -> None:
    """The primary may not go on alone, for nobody can decide that; the writes stand in its log."""
    async with loaded(cluster, tmp_path, errors=True):
        trial = Trial(cluster, shard=9)
        async with trial.impatient() as store:
            await trial.begin(store)
            _, backup = await members_of(cluster, 9)
            with stopped(cluster.cluster.coordinator_pid()):
                former = tree(cluster.cluster.coordinator_child_pid())
                former[0].kill()
                await all_exit(former[:1])
                with stopped(backup.pid):
                    done = await trial.strive(store)
        writes = [operation for kind, operation in done.items() if kind != "get"]
        assert all(operation.outcome == "unknown" for operation in writes), "each may have been applied"
        await cluster.healthy()
        await trial.judge()


async def test_deadline_inside_a_failover(cluster: SharedCluster, tmp_path: Path) -> None:
    """A primary stands still with writes in its socket, another takes over, and the first never wakes."""
    async with loaded(cluster, tmp_path):
        trial = Trial(cluster, shard=13)
        async with trial.impatient() as store:
            await trial.begin(store)
            primary, _ = await members_of(cluster, 13)
            with stopped(primary.pid):
                done = await trial.strive(store)
                # Long enough that the backup has taken over, and has taken what was in its log with it.
                async with ClusterStore(",".join(cluster.cluster.seeds)) as patient:
                    probe = Probe(patient)
                    await probe.begin()
                    await probe.everywhere()
                os.kill(primary.pid, signal.SIGKILL)
        assert all(refused(operation) or operation.outcome == "ok" for operation in done.values())
        await cluster.healthy()
        await trial.judge()
