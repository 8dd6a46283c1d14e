"""The client against real members of etcd: what the fake does is what they do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from greenroom_cluster.coordination.etcd.client import EtcdClient
from greenroom_cluster.coordination.etcd.gateway import (
    OPERATIONS_MAX,
    Compare,
    EtcdAwayError,
    EtcdRefusedError,
    LeaseOverError,
    Put,
    Range,
    Watched,
    end_of,
)
from greenroom_cluster.coordination.etcd.settings import EtcdSettings
from tests.cluster.etcd.stage import Members, needs_etcd

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(300), needs_etcd]

LEADER = b"/greenroom/leader"


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    members = Members(tmp_path)
    members.start_all()
    yield members
    members.kill_all()


def client(members: Members, user: str = "", password: str = "") -> EtcdClient:
    settings = EtcdSettings(urls=members.urls, user=user, timeout_seconds=10.0)
    return EtcdClient(settings, password=lambda: password)


async def test_one_of_two_gets_the_key_and_its_end_frees_it(members: Members) -> None:
    await members.until_healthy()
    async with client(members) as etcd:
        lease = await etcd.grant(1)
        assert lease.ttl_seconds == 2, "the shortest that this etcd gives"
        never = [Compare(LEADER, "CREATE", 0)]
        first = await etcd.transact(never, [Put(LEADER, b"c1", lease.id)], [Range(LEADER)])
        again = await etcd.transact(never, [Put(LEADER, b"c2")], [Range(LEADER)])
        assert (first.succeeded, again.succeeded) == (True, False)
        (held,) = again.responses[0].response_range.kvs
        assert (held.value, held.lease, held.create_revision) == (b"c1", lease.id, first.header.revision)
        assert (await etcd.keep_alive(lease.id)).ttl_seconds == 2
        await etcd.revoke(lease.id)
        assert (await etcd.keep_alive(lease.id)).ttl_seconds == 0
        await etcd.revoke(lease.id)  # is fine
        with pytest.raises(LeaseOverError):
            await etcd.transact(never, [Put(LEADER, b"c1", lease.id)])
        assert (await etcd.transact(never, [Put(LEADER, b"c2")])).succeeded


async def test_most_operations_and_bytes_fit_into_one_transaction(members: Members) -> None:
    await members.until_healthy()
    value = bytes(range(256)) * 43  # of 11 kB each, 1.4 MB in all
    puts = [Put(b"many/%03d" % number, value) for number in range(OPERATIONS_MAX)]
    async with client(members) as etcd:
        assert (await etcd.transact([], puts)).succeeded
        found = await etcd.range(Range(b"many/", end_of(b"many/")))
        assert [each.value for each in found.kvs] == [value] * OPERATIONS_MAX
        with pytest.raises(EtcdRefusedError):
            await etcd.transact([], [Put(b"a", b""), Put(b"a", b"")])  # the same key twice


async def test_a_watch_goes_on_from_a_revision_and_tells_what_is_compacted(members: Members) -> None:
    await members.until_healthy()
    async with client(members) as etcd:
        revisions = [
            (await etcd.transact([], [Put(b"a", b"%d" % number)])).header.revision for number in range(3)
        ]
        async with etcd.watch(Range(b"a"), revisions[1]) as parts:
            values: list[bytes] = []
            async for part in parts:
                values += [event.kv.value for event in part.events]
                if len(values) == 2:
                    break
        assert values == [b"1", b"2"]
        await members.post("/v3/kv/compaction", {"revision": revisions[2]})
        with trio.fail_after(30):
            async with etcd.watch(Range(b"a"), revisions[0]) as parts:
                seen: list[Watched] = [part async for part in parts]
        assert (seen[-1].canceled, seen[-1].compact_revision) == (True, revisions[2])


async def test_a_token_that_ended_with_its_member_is_renewed(members: Members) -> None:
    await members.until_healthy()
    for path, body in (
        ("/v3/auth/user/add", {"name": "root", "password": "green"}),
        ("/v3/auth/role/add", {"name": "root"}),
        ("/v3/auth/user/grant", {"user": "root", "role": "root"}),
        ("/v3/auth/enable", {}),
    ):
        await members.post(path, dict(body))
    async with client(members, "root", "green") as etcd, client(members, "root", "red") as wrong:
        await etcd.transact([], [Put(b"a", b"x")])
        members.kill()
        members.start()
        await members.until_healthy()
        assert (await etcd.range(Range(b"a"))).kvs[0].value == b"x"
        with pytest.raises(EtcdRefusedError, match="authentication failed"):
            await wrong.range(Range(b"a"))
    async with client(members) as nobody:
        with pytest.raises(EtcdRefusedError, match="--etcd-user"):
            await nobody.range(Range(b"a"))


async def test_two_of_three_members_go_on(tmp_path: Path) -> None:
    members = Members(tmp_path, 3)
    members.start_all()
    try:
        for name in ("m0", "m1", "m2"):
            await members.until_healthy(name)
        async with client(members) as etcd:
            await etcd.transact([], [Put(b"a", b"x")])
            members.kill("m0")
            with trio.fail_after(60):
                while True:
                    try:
                        assert (await etcd.range(Range(b"a"))).kvs[0].value == b"x"
                        break
                    except EtcdAwayError:
                        pass  # until the others have a leader
            members.kill("m1")
            with pytest.raises(EtcdAwayError):
                await etcd.range(Range(b"a"))
    finally:
        members.kill_all()
