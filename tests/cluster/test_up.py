"""How `greenroom up` starts a cluster."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from greenroom.errors import UnavailableError
from greenroom_cluster.cli import cluster_up
from greenroom_cluster.config import ActorOptions, Durability, NodeOptions
from greenroom_cluster.local_settings import LocalClusterSettings


@pytest.mark.trio
@pytest.mark.parametrize(("mode", "seconds"), [("none", 60.0), ("interval", math.inf), ("fsync", math.inf)])
async def test_sessions_on_disk_are_awaited_for_as_long_as_it_takes(
    mode: Durability, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large log takes minutes, and an operator may have to give up a directory meanwhile."""
    asked: list[float | None] = []

    @asynccontextmanager
    async def start(_: object, *, wait_seconds: float | None, **__: Any) -> AsyncIterator[None]:
        asked.append(wait_seconds)
        raise UnavailableError("not complete")
        yield

    monkeypatch.setattr(cluster_up, "open_local_cluster", start)
    node = NodeOptions(actor=ActorOptions(durability=mode))
    settings = msgspec.structs.replace(LocalClusterSettings(), data_dir=tmp_path, node=node)
    with pytest.raises(UnavailableError):
        await cluster_up.run_up(settings, json=True)
    assert asked == [seconds]
