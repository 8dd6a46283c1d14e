"""Another user of the hosts, who knows every address and not the secret of the cluster.

It dials whatever listens, and tries in turn what may be tried without the secret. And it listens where an
actor has ended, for whoever still dials that address. Nobody may serve it, and nobody may tell it more than
a hello.
"""

from typing import Any

import msgspec

from greenroom import wire
from greenroom.framing import FrameBuffer, encode_frames, encode_greeting, messages_decoder
from greenroom.proofs import NONCE_BYTES, Proof
from greenroom_cluster.coordination.owners import NOWHERE
from simulations.cluster.connections import hello
from simulations.cluster.stage import Stage
from simulations.kernel.network import End
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND

_EVERY_NS = 20 * MILLISECOND
_SQUAT_NS = 300 * MILLISECOND
_MAC_BYTES = 32
_greeting = msgspec.msgpack.Decoder(wire.Hello | wire.Goodbye)
_goodbyes = messages_decoder(wire.Goodbye)
_ROLES = (wire.ROLE_CLIENT, wire.ROLE_PEER)
_SAYS_NOTHING, _GUESSES, _REFLECTS, _SKIPS, _WITHOUT = WAYS = range(5)


class Intruder(Process):
    """The process of that user; `served` and `told` count what must not happen."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.network, stage.network.machine("intruder"), "intruder", stage.apart)
        self._stage = stage
        self._squatted: dict[str, Process] = {}

    def start(self) -> None:
        """Begin."""
        self.timeline.after(_EVERY_NS, self._go_on)

    def on_served(self, role: str) -> None:
        """Hear that somebody serves a connection of ours."""
        self._stage.violate("proof", f"who knows no secret is served as {role}")

    def _go_on(self) -> None:
        if self._stage.healing:
            return
        self.timeline.after(_EVERY_NS, self._go_on)
        targets = [(node.address, wire.ROLE_CLIENT, b"") for node in self._stage.supervisors.values()]
        for actor in self._stage.map.actors.values():
            targets += [(actor.address, role, actor.incarnation) for role in _ROLES]
        targets.append((self._stage.coordinator.address, wire.ROLE_PEER, b""))
        address, role, target = self.random.choice(targets)
        _Try(self, address, hello(role, self.random.randbytes(16), target), self.random.choice(WAYS))
        self._squat()

    # --- listening ---------------------------------------------------------------------------------------

    def _squat(self) -> None:
        """Listen for a while at the address of an actor that has ended, where no other will."""
        if self._stage.plan.fixed_ports:
            return
        known = self._stage.map.actors.items()
        ended = [entry.address for key, entry in known if not self._lives(key)]
        # Of who ended before a map was made anew, no address is known.
        free = sorted(set(ended) - self._squatted.keys() - {NOWHERE})
        if not free:
            return
        address = self.random.choice(free)
        machine = self.network.machines[address.partition(":")[0]]
        if not machine.up:
            return
        squatter = Process(self.network, machine, "squatter", self.random)
        self._squatted[address] = squatter

        def accept(end: End) -> None:
            if end.peer.process is not self:
                _Answer(self, squatter, end)

        self.network.listen(squatter, address, accept)
        self.timeline.after(_SQUAT_NS, self._leave, address)

    def _lives(self, incarnation: bytes) -> bool:
        actor = self._stage.actors.get(incarnation)
        return actor is not None and actor.alive

    def _leave(self, address: str) -> None:
        self._squatted.pop(address).kill()

    def told(self, payload: Any) -> None:
        """Hear something that was said to us."""
        self._stage.violate("proof", f"who knows no secret was told {type(payload).__name__}")

    def note(self, what: str) -> None:
        """Count something."""
        self.network.happened[what] += 1


class _Try:
    """One connection that the intruder opens."""

    def __init__(self, intruder: Intruder, address: str, greeting: wire.Hello, way: int) -> None:
        self._intruder = intruder
        self._way = way
        nonce = b"" if way == _WITHOUT else intruder.random.randbytes(NONCE_BYTES)
        self._greeting = msgspec.structs.replace(greeting, auth=nonce)
        self._end: End | None = None
        intruder.network.connect(intruder, address, self._opened, _ignore, "intruder")

    def _opened(self, end: End) -> None:
        self._end = end
        end.on_data = self._answered
        end.on_closed = _ignore
        self._intruder.network.send(end, encode_greeting(self._greeting))
        if self._way == _SKIPS:
            self._intruder.network.send(end, self._request())

    def _answered(self, payload: Any) -> None:
        frames = FrameBuffer().feed(payload) if isinstance(payload, bytes) else []
        if len(frames) != 1:
            self._intruder.told(payload)
            return
        try:
            answer = _greeting.decode(frames[0])
        except msgspec.ValidationError:
            self._refused(frames[0])
            return
        if isinstance(answer, wire.Goodbye):
            self._intruder.note("intruder was refused")
            return
        assert self._end is not None
        guess = self._intruder.random.randbytes(_MAC_BYTES)
        mac = answer.auth[NONCE_BYTES:] if self._way == _REFLECTS else guess
        proof = b"" if self._way in (_SAYS_NOTHING, _SKIPS) else encode_greeting(Proof(mac))
        self._intruder.network.send(self._end, proof + self._request())

    def _refused(self, frame: bytes) -> None:
        """Take a goodbye, which after the hello is a message among others."""
        try:
            _goodbyes.decode(frame)
        except msgspec.ValidationError:
            self._intruder.told(frame)
        else:
            self._intruder.note("intruder was refused")

    def _request(self) -> bytes:
        return bytes(encode_frames([wire.Subscribe(0, 0)], 1 << 16))


class _Answer:
    """A connection that somebody else opens to the intruder."""

    def __init__(self, intruder: Intruder, squatter: Process, end: End) -> None:
        self._intruder = intruder
        self._squatter = squatter
        self._end = end
        end.on_data = self._greeted
        end.on_closed = _ignore

    def _greeted(self, payload: Any) -> None:
        (frame,) = FrameBuffer().feed(payload)
        asked = _greeting.decode(frame)
        self._intruder.note("intruder was dialled")
        assert isinstance(asked, wire.Hello)
        random = self._intruder.random
        auth = random.choice((b"", random.randbytes(NONCE_BYTES + _MAC_BYTES), asked.auth + asked.auth))
        answer = hello(wire.ROLE_PEER, asked.target or random.randbytes(16))
        self._end.on_data = self._intruder.told
        self._squatter.network.send(self._end, encode_greeting(msgspec.structs.replace(answer, auth=auth)))


def _ignore(*_: Any) -> None:
    pass
