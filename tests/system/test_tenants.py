"""Two apps with certificates of their own on one cluster: each does to the other what it can."""

from pathlib import Path

import pytest

import greenroom
from greenroom import BaseSessionStore, SessionNotFoundError
from tests.system.test_tls import Secured, new_session, secured, uri

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
