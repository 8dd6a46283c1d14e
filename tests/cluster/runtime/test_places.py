"""One holder of a certificate or token at its limit of connections, and others at the same port."""

from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import capture_logs

from greenroom import wire
from greenroom.framing import FRAME_BYTES_MAX
from greenroom.loopback_secrets import LoopbackSecrets
from greenroom.tls.credentials import Credentials
from greenroom.tls.demands import node_of
from greenroom_cluster.links.places import BESIDE_MAX
from greenroom_cluster.metrics.readings import Readings
from greenroom_cluster.runtime import refusals
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.connection_readings import tell_connections
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.listener import Listener
from greenroom_cluster.runtime.log_limits import LimitedLog
from greenroom_cluster.runtime.proving import Safeguard, Trust
from tests.cluster.runtime.loopback import CLUSTER, hello, until
from tests.cluster.runtime.test_tokens import AUTHORITY, WEB, Stage, asked, refused

pytestmark = pytest.mark.trio
LIMIT = 5


class Port:
    """A listener, and whoever dials it with a certificate."""

    def __init__(self, stage: Stage, listener: Listener, nursery: trio.Nursery) -> None:
        self.stage = stage
        self.listener = listener
        self.nursery = nursery
        # A connection that is collected is closed.
        self._kept: list[FramedConnection] = []

    def certified(self, role_and_name: str) -> Trust:
        issued = AUTHORITY.issue(f"greenroom://{CLUSTER}/{role_and_name}")
        files = issued.files(self.stage.folder, role_and_name.replace("/", "-").partition("?")[0])
        return Trust(Credentials(files, print), node_of(CLUSTER, "n1"))

    async def dial(self, trust: Safeguard, role: str = wire.ROLE_CLIENT) -> FramedConnection:
        connection, _ = await dial(self.listener.address(), hello(role), self.nursery, trust=trust)
        self._kept.append(connection)
        assert await asked(connection) == [wire.Missing(1)]
        return connection

    async def fill(
        self, trust: Safeguard, count: int, role: str = wire.ROLE_CLIENT
    ) -> list[FramedConnection]:
        return [await self.dial(trust, role) for _ in range(count)]

    async def refused(self, trust: Trust, role: str = wire.ROLE_CLIENT) -> str:
        return await refused(self.listener, self.nursery, trust, role)


@pytest.fixture
async def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(refusals, "_limited_log", LimitedLog(structlog.get_logger(), lines=1000))
    stage = Stage(tmp_path)
    async with stage.listening(of_identity_max=LIMIT) as (listener, nursery):
        yield Port(stage, listener, nursery)


async def test_one_at_its_limit_is_told_so_and_another_is_served(port: Port) -> None:
    shop, other = port.certified("client/shop"), port.certified("client/other")
    held = await port.fill(shop, LIMIT)
    before = refusals.refused["too-many-of-identity"]
    with capture_logs() as logs:
        with pytest.raises(DialFailedError, match="raise --identity-connections-max") as caught:
            await port.dial(shop)
        assert caught.value.code == "too-many-of-identity"
    (line,) = [line for line in logs if line["event"] == "connection_refused"]
    assert (line["reason"], line["log_level"]) == ("too-many-of-identity", "warning")
    assert f"5 clients of greenroom://{CLUSTER}/client/shop already" in line["detail"]
    readings = Readings()
    tell_connections(readings, port.listener)
    told = {(each.name, *each.labels): each.value for each in readings.all}
    assert told["greenroom_connections_refused_total", "too-many-of-identity"] == before + 1
    assert told["greenroom_connections", wire.ROLE_CLIENT] == LIMIT
    await port.dial(other)
    assert await asked(held[0]) == [wire.Missing(1)], "what is open goes on"
    held.pop().close()
    await until(lambda: port.listener.served[wire.ROLE_CLIENT] == LIMIT)
    await port.dial(shop)


async def test_who_dials_without_end_keeps_nobody_out(port: Port) -> None:
    shop, other = port.certified("client/shop"), port.certified("client/other")
    held = await port.fill(shop, LIMIT)
    codes: list[str] = []

    async def hammer() -> None:
        while True:
            codes.append(await port.refused(shop))

    for _ in range(4):
        port.nursery.start_soon(hammer)
    await until(lambda: len(codes) > 20)
    with trio.fail_after(20):
        served = await port.fill(other, LIMIT)
    assert len(served) == LIMIT
    assert set(codes) == {"too-many-of-identity"}
    assert all([await asked(each) == [wire.Missing(1)] for each in held])


async def test_tokens_and_a_certificate_of_one_holder_count_together(port: Port) -> None:
    stage = port.stage
    tokens = [stage.trust(stage.issue(name)) for name in ("web-1", "web-2")]
    both = [*tokens, port.certified(WEB.uri.removeprefix(f"greenroom://{CLUSTER}/"))]
    for number in range(LIMIT):
        await port.dial(both[number % 3])
    for trust in both:
        assert await port.refused(trust) == "too-many-of-identity"
    await port.dial(port.certified("client/other"))


async def test_a_looker_leaves_peers_their_room(port: Port) -> None:
    looker = port.certified("observer/monitoring")
    await port.fill(looker, BESIDE_MAX, wire.ROLE_ADMIN)
    assert await port.refused(looker, wire.ROLE_ADMIN) == "too-many-of-identity"
    await port.dial(port.certified("operator/ada"), wire.ROLE_OPERATOR)
    peers = await port.fill(port.certified("node/n2"), 2 * LIMIT, wire.ROLE_PEER)
    assert len(peers) == 2 * LIMIT


async def test_whoever_knows_the_secret_of_loopback_is_one_holder(tmp_path: Path) -> None:
    secret = LoopbackSecrets(CLUSTER, tmp_path / "secret")
    secret.make()
    stage = Stage(tmp_path)
    settings = {"credentials": secret, "tokens": None, "of_identity_max": 2}
    async with stage.listening(**settings) as (listener, nursery):
        port = Port(stage, listener, nursery)
        first, _ = await port.fill(secret, 2)
        with pytest.raises(DialFailedError) as caught:
            await port.dial(secret)
        assert caught.value.code == "too-many-of-identity"
        first.close()
        await until(lambda: listener.served[wire.ROLE_CLIENT] == 1)
        await port.dial(secret)


async def test_what_one_holds_in_many_connections_counts_together(tmp_path: Path) -> None:
    """Else who spreads unfinished frames over connections outlives who has one that is larger than each."""
    stage = Stage(tmp_path)
    part, bound = FRAME_BYTES_MAX // 4, FRAME_BYTES_MAX
    async with stage.listening(buffer_bytes_max=bound) as (listener, nursery):
        port = Port(stage, listener, nursery)
        honest = await port.dial(port.certified("client/other"))
        honest.send_encoded(unfinished(FRAME_BYTES_MAX // 2))
        await until(lambda: listener._budget.held_bytes > 0)
        spread = await port.fill(port.certified("client/shop"), 4)
        for connection in spread:
            connection.send_encoded(unfinished(part))
        await until(lambda: listener.served[wire.ROLE_CLIENT] < 5)
        assert {each.proven.identity.name for each in listener._open if each.proven} == {"shop", "other"}
        names = sorted(each.proven.identity.name for each in listener._open if each.proven)
        assert names.count("other") == 1, "the one that holds less in all goes on"
        assert names.count("shop") < 4


def unfinished(size: int) -> bytes:
    """A frame that is announced, and of which so much comes."""
    return FRAME_BYTES_MAX.to_bytes(4, "big") + bytes(size)
