"""What the trio driver does between a socket's becoming ready and its task's turn."""

from types import SimpleNamespace
from typing import Any

import pytest

trio = pytest.importorskip("trio")

from greenroom.drivers import trio_  # noqa: E402  needs trio


@pytest.mark.trio
async def test_a_connection_may_be_dropped_when_it_is_connected_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The dialog gave it up in the same tick: nothing is finished, and nothing fails."""
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    connection = trio_.Connection(1)
    driver: Any = SimpleNamespace(_sockets={1: connection}, _release=None, _reach=lambda *_: None)
    waited = trio.lowlevel.wait_writable

    async def dropped_meanwhile(descriptor: int) -> None:
        await waited(descriptor)
        sock, connection.sock = connection.sock, None
        sock.close()

    monkeypatch.setattr(trio.lowlevel, "wait_writable", dropped_meanwhile)
    host, port = listener.getsockname()
    await trio_.TrioRunner._connect(driver, connection, f"{host}:{port}")
    assert connection.sock is None
    listener.close()
