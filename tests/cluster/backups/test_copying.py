"""What keeps a cluster from being copied is told by the shard that it keeps back."""

import pytest
import trio.testing

from greenroom.cluster_map import ClusterMap, ShardEntry
from greenroom.errors import UnavailableError
from greenroom_cluster.backups import copying
from greenroom_cluster.backups.copying import copy_shards

pytestmark = pytest.mark.trio


@pytest.mark.parametrize("primary", [b"", b"g" * 16], ids=["not yet started", "gone from the map"])
async def test_a_shard_without_a_primary_is_named(primary: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ShardEntry(0, primary, (), b"", ())
    cluster_map = ClusterMap("greenroom", 1, 1, 2, {}, {}, (entry, entry))

    async def fetch_map(*_: object) -> ClusterMap:
        await trio.lowlevel.checkpoint()
        return cluster_map

    monkeypatch.setattr(copying, "fetch_map", fetch_map)
    with pytest.raises(UnavailableError, match=r"shard 0 could not be copied.*it has no primary"):
        await copy_shards(["127.0.0.1:1"], "greenroom", lambda _: None, seconds=0.0)
