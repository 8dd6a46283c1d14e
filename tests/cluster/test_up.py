"""How `greenroom up` starts a cluster."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from greenroom.errors import UnavailableError
from greenroom.loopback_secrets import LoopbackSecrets
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


WITHIN_TLS = ", with the certificate of an operator or observer, or an observer's token"


class Running:
    """A cluster that runs, as far as what is printed of it goes."""

    nodes = ("n1",)
    url = "greenroom://127.0.0.1:7400/greenroom"
    memory_bytes_max = 1 << 30
    credentials: object = None
    http_missing = ""

    def __init__(self, http: str, credentials: object = None) -> None:
        self.http_urls = {"n1": http} if http else {}
        self.dashboard_url = f"{http}/dashboard" if http else ""
        self.credentials = credentials


@pytest.mark.parametrize(
    ("running", "line"),
    [
        (Running("http://127.0.0.1:7480"), "dashboard: http://127.0.0.1:7480/dashboard"),
        (
            Running("http://127.0.0.1:7480", LoopbackSecrets("greenroom")),
            "dashboard: http://127.0.0.1:7480/dashboard, which asks for what `greenroom http-token` prints",
        ),
        (
            Running("https://127.0.0.1:7480"),
            f"dashboard: https://127.0.0.1:7480/dashboard{WITHIN_TLS}",
        ),
        (Running(""), ""),
    ],
)
def test_the_dashboard_is_named_with_what_it_asks_for(
    running: Any, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster_up._print_ready(running, LocalClusterSettings(), 1.0, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [each for each in lines if each.startswith("dashboard")] == [line] * bool(line)


def test_why_there_is_no_dashboard_is_said_unless_declined(capsys: pytest.CaptureFixture[str]) -> None:
    running: Any = Running("")
    running.http_missing = "--http needs hypercorn, which the extra `http` brings"
    cluster_up._print_ready(running, LocalClusterSettings(), 1.0, json=False)
    assert capsys.readouterr().out.endswith(f"no HTTP ports, no dashboard: {running.http_missing}\n")
