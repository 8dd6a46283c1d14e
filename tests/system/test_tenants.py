"""Two apps with certificates of their own on one cluster: each does to the other what it can."""

from pathlib import Path

import pytest

import greenroom
from greenroom import BaseSessionStore, SessionNotFoundError, StoreFullError
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.quotas import Quota
from tests.system.test_tls import CLUSTER, Secured, new_session, secured, uri

pytestmark = [pytest.mark.system, pytest.mark.trio]


async def opened(cluster: Secured, name: str) -> BaseSessionStore:
    store = greenroom.store_from_url(cluster.url(cluster.authority.issue(uri("client", name))))
    await store.check(every_shard=True)
    return store


async def test_what_one_app_does_reaches_nothing_of_another(tmp_path: Path) -> None:
    """The other knows the ids, the digests, the users and the handles, and may use them all."""
    async with (
        secured(tmp_path) as cluster,
        await opened(cluster, "shop") as shop,
        await opened(cluster, "shop") as same,
        await opened(cluster, "news?ns=shop") as issued,
        await opened(cluster, "evil") as evil,
        await opened(cluster, "old?ns=default") as old,
    ):
        kept = new_session()
        kept.user_id = "alice"
        version = await shop.create(kept)
        for friend in (same, issued):
            found = await friend.get(kept.session_id)
            assert found is not None
            assert found.data == kept.data
        for other in (evil, old):
            await check_attacks(other, kept.session_id, (await shop.list_by_user("alice"))[0].handle)
        (listed,) = await shop.list_by_user("alice")
        assert listed.version == version
        found = await shop.get(kept.session_id)
        assert found is not None
        assert (found.data, found.user_id) == (kept.data, "alice")
        # It has the same id and user in its own namespace, which ends without the one of the shop.
        assert await evil.delete_by_user("alice") == 1
        assert await evil.list_by_user("alice") == []
        assert await shop.delete_by_user("alice") == 1
        (left,) = await old.list_by_user("alice")
        assert left.version != version


async def test_an_app_that_fills_its_namespace_fills_no_other(tmp_path: Path) -> None:
    """Not even when a node is killed: then others count its sessions, and go on to refuse."""
    quota = Quota("shop", 20, 1 << 20)
    async with (
        secured(tmp_path, "--quotas", "shop=20:1MiB") as cluster,
        await opened(cluster, "shop") as shop,
        await opened(cluster, "news") as news,
    ):
        written = await fill(shop)
        assert quota.sessions <= len(written) <= quota.part(4).sessions * 4
        for _ in range(80):
            await news.create(new_session())
        await check_namespaces(cluster, len(written))
        cluster.nodes["n1"].process.kill()
        for session_id in written:
            assert await shop.get(session_id) is not None
        more = await fill(shop)
        assert len(written) + len(more) <= quota.part(4).sessions * 4
        await shop.patch(written[0], set={"cart": []})
        await news.create(new_session())
        for session_id in written + more:
            await shop.delete(session_id)
        await shop.create(new_session())


async def fill(store: BaseSessionStore) -> list[str]:
    """Create sessions until most of the shards refuse them; return their ids."""
    written: list[str] = []
    refusals: list[str] = []
    while len(refusals) < 20:
        session = new_session()
        try:
            await store.create(session)
        except StoreFullError as error:
            refusals.append(str(error))
        else:
            written.append(session.session_id)
    for told in refusals:
        assert "namespace shop is at its quota of 20 sessions" in told
        assert "--quotas" in told
    return written


async def check_namespaces(cluster: Secured, shop_sessions: int) -> None:
    """Have an observer look."""
    observer = cluster.credentials(cluster.authority.issue(uri("observer", "monitor")))
    status = await inspect_cluster(cluster.addresses, CLUSTER, credentials=observer)
    shown = {each.namespace: each for each in status.namespaces}
    assert (shown["news"].sessions, shown["news"].sessions_max) == (80, None)
    assert (shown["shop"].sessions, shown["shop"].sessions_max) == (shop_sessions, 20)
    assert shown["shop"].refused
    assert not shown["news"].refused
    assert [line for line in status.warnings() if "namespace shop is at its quota" in line]


async def check_attacks(other: BaseSessionStore, session_id: str, handle: str) -> None:
    """Have another app list, read, end, rotate and fill a session, by all that it may know."""
    assert await other.list_by_user("alice") == []
    assert await other.get(session_id) is None
    for attack in (
        other.rotate(session_id, user_id="mallory"),
        other.patch(session_id, set={"cart": []}),
        other.patch(session_id, user_id="mallory"),
    ):
        with pytest.raises(SessionNotFoundError):
            await attack
    await other.delete(session_id)
    await other.delete_by_handle("alice", handle)
    assert await other.delete_by_user("alice") == 0
    assert await other.clean() == 0
    squatted = new_session()
    squatted.session_id, squatted.user_id, squatted.data = session_id, "alice", {"cart": ["poison"]}
    await other.create(squatted)
    found = await other.get(session_id)
    assert found is not None
    assert found.data == {"cart": ["poison"]}
