"""A release serves the one before it: a cluster is rolled from that one to this and back, one by one.

Meanwhile callers of both releases share their sessions. What the former release cannot hold is refused.
"""

import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trio

from greenroom import SessionData, new_session_id, store_from_url
from greenroom.cluster_map import ActorEntry, ClusterMap, NodeEntry
from greenroom_cluster.coordination.genesis import first_map
from greenroom_cluster.coordination.storage import MapStorage
from simulations.checks.linearizability import assert_explained
from tests.packaging.environments import Environment, run
from tests.packaging.former import CLUSTER, NAMES, NEW, ZONES, Cluster, cluster_of
from tests.system.load import REPOSITORY, Release, open_load

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

SESSIONS = 40
WORKLOAD = {"workers": 3, "pause_seconds": 0.05, "fixed_sessions": 20}
"""Of each of four processes, on a machine that the cluster shares with them."""

Report = Callable[[str, object], None]


class Shop:
    """Sessions that are written at every stage, and what they must hold."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._expected: dict[str, dict[str, object]] = {}

    async def visit(self, stage: str) -> None:
        """Check every session, change it in every way, and add some."""
        async with store_from_url(self._url) as store:
            for session_id, data in list(self._expected.items()):
                found = await store.get(session_id)
                assert found is not None, stage
                assert found.data == data, stage
                assert found.user_id is not None
                assert len(await store.list_by_user(found.user_id)) == 1, stage
                patched = await store.patch(session_id, set={("seen", stage): 1}, unset=["absent"])
                rotated = await store.rotate(session_id, set={"stage": stage})
                assert rotated.version > patched.version > found.version
                del self._expected[session_id]
                if len(self._expected) % 10:
                    self._expected[rotated.session_id] = rotated.data
                else:
                    assert await store.delete_by_user(found.user_id) == 1
            for number in range(SESSIONS // 2):
                session = SessionData(
                    session_id=new_session_id(),
                    expires=datetime.now(UTC) + timedelta(hours=1),
                    user_id=f"{stage}-{number}",
                    data={"seen": {}, "text": "x" * 500, "big": 1 << 100},
                )
                await store.create(session)
                self._expected[session.session_id] = session.data


@pytest.mark.trio
async def test_a_cluster_is_upgraded_and_goes_back_under_load(
    former: Environment, tmp_path: Path, record_property: Report
) -> None:
    """As the page on upgrades promises, without an error at a caller of either release."""
    asked = run(
        former.python, "-c", "from greenroom import wire; print(wire.PROTOCOL_VERSION)", cwd=REPOSITORY
    )
    assert asked.stdout == "3\n", "callers of the former release would import this one"
    with cluster_of(tmp_path) as cluster:
        await trio.to_thread.run_sync(cluster.start, former.greenroom)
        shop = Shop(cluster.url)
        await shop.visit("former")
        others = [Release(str(former.python), cluster.former_url)]
        async with open_load(cluster.url, tmp_path, others=others, **WORKLOAD) as load:
            for name in ("coordinator", *NAMES[:2]):
                await _replace(cluster, name, NEW)
                await shop.visit(f"new {name}")
            # Each release takes over from the other.
            await trio.to_thread.run_sync(cluster.lose, "a", NEW)
            await shop.visit("lost a")
            await trio.to_thread.run_sync(cluster.lose, "c", former.greenroom)
            await shop.visit("lost c")
            await _replace(cluster, "c", NEW)
            await shop.visit("new c")
            # As on the way up of who begins with the nodes: those of this release at a former coordinator.
            for name in ("coordinator", *reversed(NAMES)):
                await _replace(cluster, name, former.greenroom)
                await shop.visit(f"former {name}")
        for name in (*NAMES, "coordinator"):
            await trio.to_thread.run_sync(cluster.stop, name, signal.SIGINT)
    record_property("longest_seconds", load.longest_seconds())
    record_property("operations", len(load.history))
    assert_explained(load.history)
    assert not load.errors
    # All of them worked all the time: a replacement takes seconds.
    by_process = {workload.name: 0 for workload, _ in load.processes}
    for operation in load.history:
        by_process[operation.client.partition(".")[0]] += 1
    assert len(by_process) == 4
    assert min(by_process.values()) > 500


async def _replace(cluster: Cluster, name: str, greenroom: Path) -> None:
    await trio.to_thread.run_sync(cluster.replace, name, greenroom)


def test_a_node_with_a_zone_serves_under_a_former_coordinator(former: Environment, tmp_path: Path) -> None:
    """That keeps none, and the node says so once; a successor hears it when the node connects."""
    with cluster_of(tmp_path) as cluster:
        cluster.start(former.greenroom)
        cluster.replace("a", NEW)
        assert cluster.log("a").count("zone_not_kept") == 1
        assert cluster.zones() == {"a": "", "b": "", "c": ""}
        cluster.replace("coordinator", NEW)
        assert cluster.zones() == {"a": ZONES["a"], "b": "", "c": ""}


def durable_map() -> ClusterMap:
    """A map with an actor that keeps what it holds on disk."""
    actor = ActorEntry(b"a" * 16, "a", "a/0", "127.0.0.1:1", "up", "h", 1, 1, "fsync", b"d" * 16, 1)
    return msgspec.structs.replace(
        first_map(CLUSTER, 16, 2),
        nodes={"a": NodeEntry("a", "127.0.0.1:2", "up")},
        actors={actor.incarnation: actor},
    )


@pytest.mark.parametrize(
    ("kept", "moved_to"),
    [(durable_map(), ""), (first_map(CLUSTER, 16, 2), "etcd://127.0.0.1:2379")],
    ids=["on-disk", "in-etcd"],
)
def test_a_former_coordinator_refuses_what_it_cannot_go_on_with(
    kept: ClusterMap, moved_to: str, former: Environment, tmp_path: Path
) -> None:
    """It would forget the directories, at which all nodes end, or decide beside who leads on etcd."""
    directory = tmp_path / "map"
    with MapStorage(directory) as storage:
        storage.save(kept)
        if moved_to:
            storage.move(moved_to)
    command = (former.greenroom, "coordinator", "--listen", "127.0.0.1:0", "--data-dir", directory)
    said = run(*command, "--cluster", CLUSTER, status=1).stderr
    assert "has format 2, this greenroom reads format 1: start the greenroom version that wrote it" in said
    assert "Traceback" not in said
    with MapStorage(directory) as storage:
        assert storage.load(even_moved=True) == kept


COOKIES = """
import sys
from greenroom import MemoryStore
from greenroom.web import Session

options, session_id, cookie = eval(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
sessions = Session(secret="a secret of both releases, of 40 characters", store=MemoryStore(), **options)
print(sessions.cookie.name, sessions.signer.sign(session_id), sessions.signer.verify(cookie) == session_id)
"""


def cookie_of(
    python: Path | str, session_id: str, other: str = "", **options: object
) -> tuple[str, str, bool]:
    """Return the name and value of a session's cookie, and whether the other value is one of it, too."""
    name, value, known = run(python, "-c", COOKIES, repr(options), session_id, other).stdout.split()
    return name, value, known == "True"


def test_apps_of_both_releases_take_each_others_cookies(former: Environment) -> None:
    """As long as the name of the cookie is the same, which this release would change by default."""
    session_id = new_session_id()
    name, old, _ = cookie_of(former.python, session_id)
    assert name == "session"
    assert cookie_of(sys.executable, session_id)[0] == "__Host-session"
    name, new, known = cookie_of(sys.executable, session_id, old, host_prefix=False)
    assert (name, known) == ("session", True)
    assert cookie_of(former.python, session_id, new) == ("session", old, True)
    assert not cookie_of(former.python, session_id, cookie_of(sys.executable, session_id, app="shop")[1])[2]
