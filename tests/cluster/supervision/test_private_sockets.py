"""What a tractor after 0.1.0a5 is told: addresses in a folder that only this user may enter.

tractor itself is played here, by what its documented options are; it was tried as docs/decisions/ tell.
"""

import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from greenroom_cluster.runtime import private_sockets
from greenroom_cluster.runtime.listening import listeners

pytestmark = pytest.mark.trio

SUN_PATH_BYTES = 108


class Processes:
    """The nursery of a supervisor's processes."""

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, Any]]] = []

    async def start_actor(self, name: str, **options: Any) -> str:
        self.started.append((name, options))
        return "portal"


def mode_of(folder: str) -> int | None:
    """The permissions of a folder; None if there is none."""
    path = Path(folder)
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


@pytest.fixture
def roots(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each root that is opened, which listens where it is told."""
    opened: list[dict[str, Any]] = []

    @asynccontextmanager
    async def open_root_actor(**options: Any) -> AsyncIterator[None]:
        opened.append(options)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("/".join(options["registry_addrs"][0]))
            server.listen()
            yield

    monkeypatch.setattr(private_sockets.tractor, "open_root_actor", open_root_actor)
    return opened


async def test_a_supervisor_listens_where_only_its_user_may_enter(roots: list[dict[str, Any]]) -> None:
    before = listeners()
    async with private_sockets.open_root("n1"):
        (options,) = roots
        assert options["enable_transports"] == ["uds"]
        folder = options["registry_addrs"][0][0]
        assert mode_of(folder) == 0o700
        (found,) = listeners() - before
        assert not found.exposed
    assert mode_of(folder) is None


async def test_a_child_listens_beside_it_however_long_its_name_is(roots: list[dict[str, Any]]) -> None:
    processes = Processes()
    async with private_sockets.open_root("n1"):
        folder = roots[0]["registry_addrs"][0][0]
        for name in ("a" * 200, "a" * 200 + "b"):
            assert await private_sockets.start_process(processes, name, "some.module") == "portal"
    addresses = [options["bind_addrs"][0] for _, options in processes.started]
    assert {address[0] for address in addresses} == {folder}
    assert len(set(addresses)) == 2
    assert all(len(os.fsencode("/".join(address))) < SUN_PATH_BYTES for address in addresses)
    for _, options in processes.started:
        assert options["enable_transports"] == ["uds"]
        assert options["inherit_parent_main"] is False
        assert options["enable_modules"] == ["some.module"]


async def test_two_supervisors_of_one_process_have_a_folder_each(roots: list[dict[str, Any]]) -> None:
    async with private_sockets.open_root("first"):
        pass
    processes = Processes()
    async with private_sockets.open_root("second"):
        await private_sockets.start_process(processes, "a", "some.module")
    first, second = (options["registry_addrs"][0][0] for options in roots)
    assert first != second
    assert processes.started[0][1]["bind_addrs"][0][0] == second
