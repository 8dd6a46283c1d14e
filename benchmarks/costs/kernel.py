"""What the kernel takes: frames of an operation's sizes through TCP on loopback, by one thread.

On loopback a send does the work of the receiving side's network stack too; only waking whoever sleeps there
is left out.
"""

import select
import socket
from collections.abc import Iterable
from time import perf_counter_ns

from benchmarks.costs.figures import WORKS, Amount, Figure, Meter, Place, Volume, Work, figures_of, repeated
from benchmarks.processes import MissingError

CLIENT_STAGES = ("send requests", "epoll, recv of replies")
SERVER_STAGES: dict[Work, tuple[str, ...]] = {
    "get": ("epoll, recv of requests", "send replies"),
    "update": (
        "epoll, recv of requests",
        "send Prepare",
        "epoll, recv of Prepare",
        "send PrepareOk",
        "epoll, recv of PrepareOk",
        "send replies",
    ),
}
_READ_BYTES = 256 * 1024


class Loopback:
    """Two ends of one connection."""

    def __init__(self, meter: Meter) -> None:
        if not hasattr(select, "epoll"):
            raise MissingError("epoll is not there: run this on Linux")
        self._meter = meter
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._near = socket.create_connection(listener.getsockname())
            self._far, _ = listener.accept()
        for sock in (self._near, self._far):
            sock.settimeout(0)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoll = select.epoll()
        self._epoll.register(self._far, select.EPOLLIN)
        self._buffer = bytearray(_READ_BYTES)

    def close(self) -> None:
        """Close both ends."""
        self._epoll.close()
        self._near.close()
        self._far.close()

    def carry(self, message: str, data: bytes, *, served: bool) -> None:
        """Send, be told by epoll, receive; `served`: and look whether more is there, as an actor does."""
        far, epoll = self._far, self._epoll
        at = perf_counter_ns()
        self._near.send(data)
        sent = perf_counter_ns()
        left = len(data)
        while left:
            epoll.poll(1.0)
            left -= far.recv_into(self._buffer)
        if served:
            epoll.poll(0)
        ended = perf_counter_ns()
        self._meter.ns[f"send {message}"] += sent - at
        self._meter.ns[f"epoll, recv of {message}"] += ended - sent


def figures(amount: Amount, volumes: Iterable[Volume]) -> list[Figure]:
    """Measure with the sizes that messages have."""
    meter = Meter()
    loopback = Loopback(meter)
    found = []
    sizes = {(each.work, each.batch, each.message): round(each.bytes * each.batch) for each in volumes}
    for work in WORKS:
        for batch in amount.batches:
            frames = {
                message: bytes(size) for (w, b, message), size in sizes.items() if (w, b) == (work, batch)
            }
            rounds = amount.rounds(batch)

            def once(frames: dict[str, bytes] = frames, rounds: int = rounds) -> None:
                for _ in range(rounds):
                    for message, data in frames.items():
                        loopback.carry(message, data, served=message != "replies")

            repeats = repeated(meter, amount.repeats, once)
            parts: tuple[tuple[Place, tuple[str, ...]], ...] = (
                ("kernel, client", CLIENT_STAGES),
                ("kernel, servers", SERVER_STAGES[work]),
            )
            for place, stages in parts:
                own = [{stage: repeat[stage] for stage in stages} for repeat in repeats]
                found += figures_of(place, work, batch, rounds * batch, list(own))
    loopback.close()
    return found
