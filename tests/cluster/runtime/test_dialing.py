"""Dialing addresses from the network: whatever they hold, the link only fails and is tried again."""

import pytest
import trio

from greenroom import wire
from greenroom.framing import encode_greeting
from greenroom.wire import PROTOCOL_VERSION, ROLE_PEER, ROUTING_VERSION
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.listener import Service
from tests.cluster.runtime.loopback import SERVER, echo, hello, listening, request_decoder

HELLO = wire.Hello(PROTOCOL_VERSION, ROUTING_VERSION, "greenroom", ROLE_PEER, b"i" * 16)


@pytest.mark.trio
@pytest.mark.parametrize("host", ["a" * 70 + ".example", "..", "\udcff"])
async def test_a_name_that_no_host_can_have_is_a_failed_dial(host: str) -> None:
    async with trio.open_nursery() as tasks:
        with pytest.raises(DialFailedError, match="that is not a host name"):
            await dial(f"{host}:80", HELLO, tasks)


@pytest.mark.trio
async def test_who_took_the_port_of_another_is_not_taken_for_it() -> None:
    """Somebody answers every hello; no greenroom does where another incarnation is meant."""
    dialled = b"D" * 16

    async def squat(stream: trio.SocketStream) -> None:
        answer = wire.Hello(PROTOCOL_VERSION, ROUTING_VERSION, "test", ROLE_PEER, b"squatter".ljust(16))
        await stream.send_all(encode_greeting(answer))
        assert await stream.receive_some() != b""

    async with trio.open_nursery() as tasks:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        tasks.start_soon(trio.serve_listeners, squat, [listener])
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(DialFailedError, match="another process answers") as failed:
            await dial(address, hello(ROLE_PEER, target=dialled), tasks)
        assert failed.value.code == "wrong-target"
        tasks.cancel_scope.cancel()


@pytest.mark.trio
async def test_who_is_dialled_is_reached() -> None:
    async with listening({ROLE_PEER: Service(request_decoder, echo, target_required=True)}) as (
        listener,
        tasks,
    ):
        _, answer = await dial(listener.address(), hello(ROLE_PEER, target=SERVER), tasks)
        assert answer.sender == SERVER
