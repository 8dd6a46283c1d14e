"""The simulated network does what TCP does, and no more."""

from random import Random
from typing import Any

from simulations.network import End, Network, TrafficRule
from simulations.processes import Process
from simulations.timeline import SECOND, Timeline


class Pair:
    """Two machines, a server on one and a client on the other, with what each of them was told."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.network = Network(self.timeline, Random(1), 100_000, 0)
        self.server = Process(self.network, self.network.machine("b"), "server", Random(2))
        self.client = Process(self.network, self.network.machine("a"), "client", Random(3))
        self.accepted: list[End] = []
        self.opened: list[End] = []
        self.failed: list[str] = []
        self.received: list[Any] = []
        self.closed: list[str] = []
        self.network.listen(self.server, "b:1", self._accept)
        self.network.connect(self.client, "b:1", self._open, self.failed.append)
        self.run(0.01)

    def _accept(self, end: End) -> None:
        self.accepted.append(end)
        end.on_data = self.received.append
        end.on_closed = lambda reason: self.closed.append(f"server: {reason}")

    def _open(self, end: End) -> None:
        self.opened.append(end)
        end.on_closed = lambda reason: self.closed.append(f"client: {reason}")

    def run(self, seconds: float) -> None:
        self.timeline.run_until(self.timeline.now + int(seconds * SECOND))

    def send(self, *payloads: str) -> None:
        for payload in payloads:
            self.network.send(self.opened[0], payload)


def test_bytes_keep_their_order_though_delays_differ() -> None:
    pair = Pair()
    everywhere = frozenset({"a", "b"})
    pair.network.rules.append(TrafficRule(everywhere, everywhere, loss=0.3, jitter_ns=50_000_000))
    sent = [str(number) for number in range(50)]
    pair.send(*sent)
    pair.run(60)
    assert pair.received == sent


def test_a_cut_holds_bytes_back_until_it_is_mended() -> None:
    pair = Pair()
    pair.network.cut("a", "b")
    pair.send("one", "two")
    pair.run(2)
    assert pair.received == []
    pair.network.mend("a", "b")
    pair.run(1)
    assert pair.received == ["one", "two"]
    assert pair.closed == []


def test_a_long_cut_ends_the_senders_side_only() -> None:
    pair = Pair()
    pair.network.cut("a", "b")
    pair.send("one")
    pair.run(6)
    assert pair.closed == ["client: timed out"]
    assert pair.accepted[0].open
    pair.network.mend("a", "b")
    pair.run(1)
    assert pair.received == []


def test_who_only_receives_is_not_acknowledged_through_a_one_way_cut() -> None:
    pair = Pair()
    pair.network.cut("b", "a")
    pair.send("one")
    pair.run(6)
    assert pair.received == ["one"]
    assert pair.closed == ["client: timed out"]


def test_a_stopped_process_finds_its_bytes_when_it_goes_on() -> None:
    pair = Pair()
    pair.server.pause()
    pair.send("one")
    pair.network.connect(pair.client, "b:1", pair.opened.append, pair.failed.append)
    pair.run(1)
    assert pair.received == []
    assert len(pair.opened) == 2, "the kernel accepts for a stopped process"
    pair.server.resume()
    pair.run(1)
    assert pair.received == ["one"]
    assert len(pair.accepted) == 2


def test_a_killed_process_closes_its_connections_and_refuses_new_ones() -> None:
    pair = Pair()
    pair.server.kill()
    pair.run(1)
    assert pair.closed == ["client: the other side closed the connection"]
    pair.network.connect(pair.client, "b:1", pair.opened.append, pair.failed.append)
    pair.run(1)
    assert pair.failed == ["connection refused"]


def test_a_machine_without_power_is_noticed_when_nothing_answers() -> None:
    pair = Pair()
    pair.network.machines["b"].up = False
    pair.server.vanish()
    pair.run(2)
    assert pair.closed == []
    pair.run(4)
    assert pair.closed == ["client: timed out"]


def test_an_abort_drops_what_waits_and_not_what_is_under_way() -> None:
    pair = Pair()
    pair.send("under way")
    pair.network.close(pair.opened[0], reset=True)
    pair.run(1)
    assert pair.received == ["under way"]

    pair = Pair()
    pair.network.cut("a", "b")
    pair.send("waits")
    pair.run(1)
    pair.network.close(pair.opened[0], reset=True)
    pair.network.mend("a", "b")
    pair.run(10)
    assert pair.received == []


def test_only_what_is_urgent_overtakes_a_queue() -> None:
    pair = Pair()
    rule = TrafficRule(frozenset({"a"}), frozenset({"b"}), queue_ns=SECOND)
    pair.network.rules.append(rule)
    pair.send("one")
    pair.network.rules.remove(rule)
    pair.send("two")
    pair.network.send(pair.opened[0], "urgent", urgent=True)
    pair.run(3)
    assert pair.received == ["urgent", "one", "two"]
