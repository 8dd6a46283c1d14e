"""`greenroom up --tls`: a cluster with an authority of its own."""

import datetime as dt
import re
import stat
from pathlib import Path

import pytest

import greenroom
from greenroom import SessionData, new_session_id
from greenroom_cluster.config import NodeOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.runtime.local import open_local_cluster

pytestmark = [pytest.mark.system, pytest.mark.trio]


async def test_up_with_tls_serves_whoever_has_its_url() -> None:
    settings = LocalClusterSettings(
        nodes=2, shards=4, listen="127.0.0.1:0", tls=True, node=NodeOptions(actors=1)
    )
    async with open_local_cluster(settings) as cluster:
        assert cluster.url.startswith("greenrooms://")
        async with greenroom.store_from_url(cluster.url) as store:
            session = SessionData(
                session_id=new_session_id(), data={"a": 1}, expires=dt.datetime.now(dt.UTC) + dt.timedelta(1)
            )
            await store.create(session)
            assert (await store.get(session.session_id)).data == {"a": 1}
        plain = f"greenroom://{','.join(cluster.seeds)}/greenroom?deadline_seconds=1"
        async with greenroom.store_from_url(plain) as store:
            with pytest.raises(greenroom.GreenroomError, match="only TLS is spoken here"):
                await store.check()
        files = written(cluster.client_options["tls_key"])
        assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in files if path.suffix == ".key")
        assert not [path for path in files if re.search("PRIVATE", text(path)) and path.suffix != ".key"]
        assert {path.parent.name for path in files} == {"app", "coordinator", "n1", "n2", "up"}
    assert not files[0].exists()


def written(key: str) -> list[Path]:
    """Every file below the directory of all holders."""
    return [path for path in Path(key).parents[2].rglob("*") if path.is_file()]


def text(path: Path) -> str:
    return path.read_text()
