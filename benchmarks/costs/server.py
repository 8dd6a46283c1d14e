"""The stages of the servers: two real hosts with their drivers and connections, without an event loop."""

from time import perf_counter_ns
from typing import Any

import msgspec

from benchmarks.costs.figures import (
    SIZE,
    WORKS,
    Amount,
    Figure,
    Meter,
    Volume,
    Work,
    figures_of,
    repeated,
)
from benchmarks.costs.hosts import CLIENT_NUMBER, WALL_START_US, Pair, Side, reading, received
from benchmarks.sessions import session_data, session_id
from greenroom import wire
from greenroom.codec import encode_data
from greenroom.framing import encode_frames, messages_decoder
from greenroom.ids import digest_of, point_of
from greenroom_cluster.shard.inputs import ClientRequests, HostInput, PeerMessages
from greenroom_cluster.shard.messages import PeerReply, PeerRequest

SESSIONS = 2000
CALLERS = 64
STAGES: dict[Work, tuple[str, ...]] = {
    "get": ("decode requests", "core of the primary: read", "encode replies", "driver"),
    "update": (
        "decode requests",
        "core of the primary: admit, log",
        "encode Prepare",
        "decode Prepare",
        "core of the backup: log, apply",
        "PrepareOk on the wire",
        "core of the primary: commit, apply, answer",
        "encode replies",
        "driver",
    ),
}

_CLIENT = b"a client's id --"
_EXPIRES_US = WALL_START_US + 10**13
_client_decoder = messages_decoder(wire.Get | wire.Mutation | wire.Fanout)
_peer_decoder = messages_decoder(PeerRequest)
_answer_decoder = messages_decoder(PeerReply | wire.Goodbye)


class Servers:
    """Two hosts that hold sessions, and one client's requests to them, each carried from end to end.

    `volumes` holds what lay on the wire.
    """

    def __init__(self, sessions: int = SESSIONS) -> None:
        self.meter = Meter()
        self._pair = Pair(self.meter)
        self._data = encode_data(session_data(SIZE))
        self._request = 0
        self._turn = 0
        self._served: list[tuple[Side, list[tuple[int, bytes]]]] = [(side, []) for side in self._pair.sides]
        for name in map(session_id, range(sessions)):
            point, digest = point_of(name), digest_of(name)
            side = self._pair.primary_of(point)
            number, low = self._number()
            created, expires = WALL_START_US, _EXPIRES_US
            create = wire.Create(number, low, 0, point, digest, None, created, expires, None, "", self._data)
            self.carry(side, "update", [create])
            next(held for other, held in self._served if other is side).append((point, digest))
        self._pair.renew()

    def figures(self, amount: Amount) -> list[Figure]:
        """Measure every stage of every work in every batch."""
        found = []
        for work in WORKS:
            for batch in amount.batches:
                rounds = amount.rounds(batch)

                def once(work: Work = work, batch: int = batch, rounds: int = rounds) -> None:
                    self._pair.renew()
                    self.meter.clear()
                    for _ in range(rounds):
                        self.batch(work, batch)

                repeats = repeated(self.meter, amount.repeats, once)
                ordered = [{stage: repeat[stage] for stage in STAGES[work]} for repeat in repeats]
                found += figures_of("servers", work, batch, rounds * batch, list(ordered))
        return found

    def volumes(self, amount: Amount) -> list[Volume]:
        """Return how many bytes lie on the wire."""
        found = []
        for work in WORKS:
            for batch in amount.batches:
                self.meter.clear()
                self.batch(work, batch)
                found += [
                    Volume(message=message, work=work, batch=batch, bytes=count / batch)
                    for message, count in self.meter.bytes.items()
                ]
        return found

    def batch(self, work: Work, size: int) -> None:
        """Carry one batch of requests, on the two sides in turn."""
        side, held = self._served[self._turn % 2]
        first = self._turn // 2 * size
        self._turn += 1
        keys = [held[(first + index) * 7 % len(held)] for index in range(size)]
        self.carry(side, work, [self.request(work, point, digest) for point, digest in keys])

    def request(self, work: Work, point: int, digest: bytes) -> wire.Get | wire.Update:
        """Return the next request."""
        number, low = self._number()
        if work == "get":
            return wire.Get(number, point, digest)
        return wire.Update(number, low, 0, point, digest, None, _EXPIRES_US, "", self._data, None)

    def carry(self, side: Side, work: Work, requests: list[wire.Request]) -> list[wire.Reply]:
        """Carry requests of one read to their primary, and what follows from them until they are answered."""
        meter, other = self.meter, self._pair.other(side)
        data = bytes(encode_frames(requests))
        meter.bytes["requests"] += len(data)
        messages = self._decode("decode requests", data, _client_decoder)
        first = "core of the primary: read" if work == "get" else "core of the primary: admit, log"
        self._step(side, first, ClientRequests(CLIENT_NUMBER, _CLIENT, messages))
        while data := side.links[False].wire.take():
            meter.bytes["Prepare"] += len(data)
            messages = self._decode("decode Prepare", data, _peer_decoder)
            stage = "core of the backup: log, apply"
            self._step(other, stage, PeerMessages(side.incarnation, messages))
            data = other.accepted[False].wire.take()
            meter.bytes["PrepareOk"] += len(data)
            messages = self._decode("PrepareOk on the wire", data, _answer_decoder)
            stage = "core of the primary: commit, apply, answer"
            self._step(side, stage, PeerMessages(other.incarnation, messages))
        data = side.client.wire.take()
        meter.bytes["replies"] += len(data)
        replies: list[wire.Reply] = received(reading(data, _reply_decoder))
        wanted = wire.Session if work == "get" else wire.Written
        if len(replies) != len(requests) or not all(type(reply) is wanted for reply in replies):
            raise RuntimeError(
                f"{len(requests)} requests were answered otherwise than with {wanted.__name__}"
            )
        return replies

    def _number(self) -> tuple[int, int]:
        """Return the next request id, and the low-watermark that so many callers leave behind it."""
        self._request += 1
        return self._request, max(1, self._request - CALLERS)

    def _decode(self, stage: str, data: bytes, decoder: "msgspec.msgpack.Decoder[Any]") -> list[Any]:
        connection = reading(data, decoder)
        began = perf_counter_ns()
        messages = received(connection)
        self.meter.ns[stage] += perf_counter_ns() - began
        return messages

    def _step(self, side: Side, stage: str, event: HostInput) -> None:
        """Let the driver step; what neither the core nor the connections have taken is its own share."""
        spent = self.meter.ns
        side.core.stage = stage
        before = sum(spent.values())
        began = perf_counter_ns()
        side.driver.step(event)
        whole = perf_counter_ns() - began
        spent["driver"] += whole - (sum(spent.values()) - before)


_reply_decoder = messages_decoder(wire.Reply)
