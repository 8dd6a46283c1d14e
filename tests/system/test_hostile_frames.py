"""Hostile frames at every port of a cluster with TLS, before the handshake and behind it, in every role.

GREENROOM_HOSTILE_FRAMES says how many. No process ends, and whoever else is there notices nothing.
"""

import math
import os
import random
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio

from greenroom import wire
from greenroom.addresses import parse_address
from greenroom.framing import encode_frames, encode_greeting
from greenroom.identities import IDENTITY_ROLES, IdentityRole
from greenroom.tls.credentials import Credentials
from greenroom_cluster.access import AT_ACTOR, AT_COORDINATOR, AT_NODE
from greenroom_cluster.config import NodeOptions
from greenroom_cluster.coordination.messages import DeclareDead, ForgetNode
from greenroom_cluster.links.handshake import ROLES
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.shard.clients.operations import Freeze
from tests.system.canaries import canaries
from tests.system.forging import Forger, meaning
from tests.system.raw import hello
from tests.system.stage import SETTINGS, SharedCluster, shared_cluster

pytestmark = [pytest.mark.system, pytest.mark.trio, pytest.mark.timeout(3600)]

FRAMES = int(os.environ.get("GREENROOM_HOSTILE_FRAMES", "5000"))
# A tenth each comes before the handshake and in the place of a hello: there, each takes a connection.
FIRST = 0.1
FRAMES_PER_CONNECTION = 40
AT_ONCE = 12
SECONDS = 30.0
ANSWER_SECONDS = 1.0
ANSWERED_BYTES = 300
"""More than any greeting has."""
STRANGER = "n9"
"""A node that has a certificate, and is not there."""


class Target:
    """A port, and what it takes in which role."""

    def __init__(self, kind: str, address: str, tables: Mapping[str, Any], target: bytes = b"") -> None:
        self.kind = kind
        self.port = parse_address(address)[1]
        self.tables = tables
        self.target = target


class Besieged:
    """A cluster that speaks TLS, and who attack it."""

    def __init__(self, cluster: SharedCluster) -> None:
        self.cluster = cluster
        authority = cluster.cluster._authority
        assert authority is not None
        names = {"node": STRANGER, "client": "mallory"}
        self.contexts: dict[IdentityRole, ssl.SSLContext] = {}
        for role in IDENTITY_ROLES:
            files = authority.files(role, names.get(role, "eve")).files()
            assert files is not None
            self.contexts[role] = Credentials(files, print).current().client
        self.targets: list[Target] = []
        self.known: list[object] = []
        self.nodes: set[str] = set()
        self.sent: Counter[tuple[str, ...]] = Counter()
        self.answered: Counter[tuple[str, ...]] = Counter()

    async def look(self) -> None:
        found = await self.cluster.map()
        self.nodes = set(found.nodes)
        for node in found.nodes.values():
            self.targets.append(Target("node", node.address, AT_NODE))
        for actor in found.actors.values():
            self.targets.append(Target("actor", actor.address, AT_ACTOR, actor.incarnation))
        self.targets.append(Target("coordinator", self.cluster.cluster.coordinator_address, AT_COORDINATOR))
        self.known = [*found.actors, *(b"m" * 32,), *range(found.shard_count), *found.epochs, found.version]

    # --- attacks -----------------------------------------------------------------------------------------

    def attacks(self, seed: int) -> Iterator[Callable[[], Any]]:
        """Yield attacks of about `FRAMES` frames, over every port, certificate and role in turn."""
        chance = random.Random(seed)
        first = max(1, round(FRAMES * FIRST / len(self.targets)))
        ways = [
            (target, holder, role)
            for target in self.targets
            for holder in IDENTITY_ROLES
            for role in sorted(ROLES[holder])
            if role in target.tables
        ]
        batches = max(1, round(FRAMES * (1 - 2 * FIRST) / len(ways) / FRAMES_PER_CONNECTION))
        rest: list[Callable[[], Any]] = []
        for target in self.targets:
            rest += [partial(self.before, target, chance.random()) for _ in range(first)]
            for number in range(first):
                holder = IDENTITY_ROLES[number % len(IDENTITY_ROLES)]
                rest.append(partial(self.instead_of_a_hello, target, holder, chance.random()))
        for way in ways:
            rest += [partial(self.behind_a_hello, *way, chance.random()) for _ in range(batches)]
        chance.shuffle(rest)
        yield from rest

    async def before(self, target: Target, seed: float) -> None:
        """Say something else than TLS."""
        forger = Forger(seed, self.known)
        data = forger.noise() if forger.chance.random() < 0.7 else encode_greeting(hello(wire.ROLE_CLIENT))
        self.sent["before", target.kind] += 1
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", target.port) as stream:
                await stream.send_all(data)
                await stream.send_eof()
                await _until_ended(stream)

    async def instead_of_a_hello(self, target: Target, holder: IdentityRole, seed: float) -> None:
        """Shake hands, then say no hello that is one."""
        forger = Forger(seed, self.known)
        self.sent["hello", target.kind, holder] += 1
        await self._speak(target, holder, forger.greeting(hello(min(ROLES[holder]))))

    async def behind_a_hello(self, target: Target, holder: IdentityRole, role: str, seed: float) -> None:
        """Say hello as one may, then many things with wild fields, and at last something broken."""
        forger = Forger(seed, self.known)
        kinds = target.tables[role]
        opening = hello(role, target=target.target, sender=self._sender(forger.chance))
        data, said = bytearray(encode_greeting(opening)), 0
        if target.kind == "coordinator":
            data += encode_frames([wire.Subscribe(0, 0)])
        for frame in self._frames(forger, kinds, many=(target.kind, role) != ("coordinator", wire.ROLE_PEER)):
            data += frame
            said += 1
        self.sent[target.kind, holder, role] += said
        self.answered[target.kind, holder, role] += await self._speak(
            target, holder, bytes(data), ANSWER_SECONDS
        )

    def _frames(self, forger: Forger, kinds: Any, *, many: bool) -> Iterator[bytes]:
        """Yield frames that are carried out, then perhaps one that ends the connection.

        Where nearly everything ends it they are not `many`.
        """
        read, left = meaning(kinds), FRAMES_PER_CONNECTION if many else 2
        while left:
            frame = forger.frame(kinds)
            messages = read(frame)
            if messages and not any(map(self._is_by_right, messages)):
                yield frame
                left -= 1
        broken = forger.chance.choice((b"", forger.broken(frame)))
        if not any(map(self._is_by_right, read(broken))):
            yield broken

    def _sender(self, chance: random.Random) -> bytes:
        """Return who the hello is from: somebody made up, now and then an actor of another node."""
        actors = [each for each in self.known if isinstance(each, bytes) and len(each) == 16]
        return chance.choice(actors) if chance.random() < 0.05 else chance.randbytes(16)

    def _is_by_right(self, message: object) -> bool:
        """Whether it does harm that its sender may do: an operator freezes actors, and forgets nodes."""
        if isinstance(message, ForgetNode | DeclareDead):
            return message.name in self.nodes
        return isinstance(message, Freeze)

    async def _speak(
        self, target: Target, holder: IdentityRole, data: bytes, patience_seconds: float = 0
    ) -> int:
        """Say this within TLS, hear what is answered until the end, and return how many bytes that is.

        The end comes from this side after an answer, or if there is none in this time.
        """
        heard = 0
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", target.port) as stream:
                tls = trio.SSLStream(stream, self.contexts[holder], https_compatible=True)
                with trio.fail_after(SECONDS):
                    await tls.do_handshake()
                answered = trio.Event()
                async with trio.open_nursery() as nursery:

                    async def say() -> None:
                        with suppress(OSError, trio.BrokenResourceError):
                            await tls.send_all(data)
                            with trio.move_on_after(patience_seconds):
                                await answered.wait()
                            await stream.send_eof()

                    nursery.start_soon(say)
                    with trio.fail_after(SECONDS), suppress(OSError, trio.BrokenResourceError):
                        while received := await tls.receive_some():
                            heard += len(received)
                            if heard > ANSWERED_BYTES:
                                answered.set()
                    nursery.cancel_scope.cancel()
        return heard


async def _until_ended(stream: trio.SocketStream) -> None:
    with trio.fail_after(SECONDS):
        while await stream.receive_some():
            pass


@pytest.fixture(scope="module")
def secured() -> Iterator[SharedCluster]:
    settings = LocalClusterSettings(
        nodes=2,
        shards=4,
        listen=SETTINGS.listen,
        coordinator_listen=SETTINGS.coordinator_listen,
        tls=True,
        node=NodeOptions(actors=1),
        process=SETTINGS.process,
    )
    with shared_cluster(settings) as cluster:
        yield cluster


async def test_hostile_frames_at_every_port_harm_nobody(secured: SharedCluster) -> None:
    await secured.healthy()
    besieged = Besieged(secured)
    await besieged.look()
    attacks = besieged.attacks(seed=FRAMES)
    # How fast they are served is the subject of others: here handshakes and frames take the processors.
    async with canaries(secured.cluster, slowdown_max=math.inf), trio.open_nursery() as nursery:

        async def attack() -> None:
            for each in attacks:
                await each()

        for _ in range(AT_ONCE):
            nursery.start_soon(attack)
    total = sum(besieged.sent.values())
    assert total >= 0.9 * FRAMES, besieged.sent
    # What can be decoded is carried out, so it was not in vain: who is refused gets a goodbye and no more. (A
    # node that is not there may say next to nothing at the coordinator.)
    spoken = {(kind, role) for (kind, _, role), size in besieged.answered.items() if size > ANSWERED_BYTES}
    assert spoken >= {
        ("actor", "client"), ("actor", "admin"), ("actor", "operator"), ("actor", "peer"),
        ("node", "client"), ("node", "admin"), ("coordinator", "admin"), ("coordinator", "operator"),
    }, besieged.answered  # fmt: skip
    assert (await secured.healthy()).healthy
