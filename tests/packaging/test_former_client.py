"""A store that speaks version 3 of the protocol, built from the history, on a cluster of this release."""

from pathlib import Path

import pytest

from tests.packaging.environments import Environment, cluster_up, run
from tests.packaging.former import NEW

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

CLIENT = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from greenroom import (
    SessionData, SessionExistsError, SessionNotFoundError, UsageError, VersionConflictError, new_session_id,
    store_from_url, wire,
)

async def refused(kind, awaitable):
    try:
        await awaitable
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")

async def main(url):
    assert wire.PROTOCOL_VERSION == 3
    async with store_from_url(url) as store:
        def fresh(**changes):
            soon = datetime.now(UTC) + timedelta(hours=1)
            fields = {"session_id": new_session_id(), "expires": soon, "data": {"n": 1}}
            return SessionData(**{**fields, **changes})

        one = fresh(user_id="alice", data={"cart": {}, "text": "x" * 50_000, "big": 1 << 100})
        version = await store.create(one)
        await refused(SessionExistsError, store.create(one))
        got = await store.get(one.session_id)
        assert (got.data, got.user_id, got.version) == (one.data, "alice", version)

        got.data["n"] = 2
        later = await store.update(one.session_id, got, version=version)
        await refused(VersionConflictError, store.update(one.session_id, got, version=version))
        patched = await store.patch(one.session_id, set={("cart", "sku-1"): 2}, unset=["text"])
        assert patched.data == {"cart": {"sku-1": 2}, "big": 1 << 100, "n": 2} and patched.version > later
        # More paths than this cluster takes: refused alone, and the connection goes on.
        many = {f"k{number}": number for number in range(2000)}
        await refused(UsageError, store.patch(one.session_id, set=many))

        rotated = await store.rotate(one.session_id, set={"role": "admin"})
        new_id = rotated.session_id
        assert rotated.data["role"] == "admin"
        assert await store.get(one.session_id) is None
        await refused(SessionNotFoundError, store.patch(one.session_id, set={"n": 3}))
        await store.create(fresh(user_id="alice"))
        assert len(await store.list_by_user("alice")) == 2
        assert await store.delete_by_user("alice", keep=new_id) == 1
        await store.delete(new_id)
        assert await store.get(new_id) is None
        # Through every shard, and so every actor.
        sessions = [fresh() for _ in range(200)]
        await asyncio.gather(*(store.create(each) for each in sessions))
        found = await asyncio.gather(*(store.get(each.session_id) for each in sessions))
        assert all(each is not None for each in found)
    print("served")

asyncio.run(main(sys.argv[1]))
"""


def test_a_store_of_version_3_is_served(former: Environment, tmp_path: Path) -> None:
    with cluster_up(NEW, tmp_path, "--loopback-proof", "accept") as ready:
        url = f"greenroom://{','.join(ready['seeds'])}"
        assert run(former.python, "-c", CLIENT, url).stdout == "served\n"
