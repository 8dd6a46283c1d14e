"""Dialing addresses from the network: whatever they hold, the link only fails and is tried again."""

import pytest
import trio

from greenroom import wire
from greenroom.wire import PROTOCOL_VERSION, ROLE_PEER, ROUTING_VERSION
from greenroom_cluster.runtime.dialing import DialFailedError, dial

HELLO = wire.Hello(PROTOCOL_VERSION, ROUTING_VERSION, "greenroom", ROLE_PEER, b"i" * 16)


@pytest.mark.trio
@pytest.mark.parametrize("host", ["a" * 70 + ".example", "..", "\udcff"])
async def test_a_name_that_no_host_can_have_is_a_failed_dial(host: str) -> None:
    async with trio.open_nursery() as tasks:
        with pytest.raises(DialFailedError, match="not a name of a host"):
            await dial(f"{host}:80", HELLO, tasks)
