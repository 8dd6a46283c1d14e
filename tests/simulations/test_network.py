"""The simulated network does what TCP does, and no more."""

from random import Random
from typing import Any

from simulations.kernel.network import End, Network
from simulations.kernel.processes import Process
from simulations.kernel.timeline import SECOND, Timeline
from simulations.kernel.traffic import TrafficRule


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


def test_what_arrives_unread_is_read_after_the_other_side_has_gone() -> None:
    pair = Pair()
    far = pair.accepted[0]
    pair.network.leave_unread(far)
    pair.send("one", "two")
    pair.run(0.1)
    pair.network.half_open(pair.opened[0])
    pair.run(0.1)
    assert pair.closed == ["client: connection reset"]
    assert pair.received == []
    pair.network.read_again(far)
    assert pair.received == ["one", "two"]


def test_sending_on_a_connection_that_ended_drops_what_is_unread_of_it() -> None:
    pair = Pair()
    far = pair.accepted[0]
    pair.network.leave_unread(far)
    pair.send("one")
    pair.network.close(pair.opened[0], reset=False)
    pair.run(0.1)
    pair.network.send(far, "answer")
    pair.network.read_again(far)
    assert pair.received == []
    assert pair.closed == ["server: the other side closed the connection"]


def test_a_thin_line_lets_bytes_through_at_its_rate() -> None:
    """Urgent bytes go first."""
    pair = Pair()
    here, there = frozenset({"a"}), frozenset({"b"})
    pair.network.rules.append(TrafficRule(here, there, bytes_per_second=1000))
    for payload in (b"a" * 500, b"b" * 500):
        pair.network.send(pair.opened[0], payload)
    pair.network.send(pair.opened[0], b"beacon", urgent=True)
    pair.run(0.1)
    assert pair.received == [b"beacon"]
    pair.run(0.45)
    assert pair.received == [b"beacon", b"a" * 500]
    pair.run(0.5)
    assert pair.received == [b"beacon", b"a" * 500, b"b" * 500]


def test_a_rule_for_a_tag_leaves_other_connections_alone() -> None:
    pair = Pair()
    here, there = frozenset({"a"}), frozenset({"b"})
    pair.network.rules.append(TrafficRule(here, there, delay_ns=SECOND, tag="bulk"))
    pair.send("one")
    pair.run(0.1)
    assert pair.received == ["one"]


def test_what_is_lost_again_and_again_ends_the_senders_side() -> None:
    pair = Pair()
    here, there = frozenset({"a"}), frozenset({"b"})
    pair.network.rules.append(TrafficRule(here, there, loss=0.999999))
    pair.send("one")
    pair.network.rules.clear()
    pair.send("two")
    pair.run(6)
    assert pair.closed == ["client: timed out"]
    assert pair.received == []


def test_who_only_reads_finds_out_that_the_sender_has_given_up() -> None:
    """Its keep-alive probes are refused once they get through, although nothing told it."""
    pair = Pair()
    pair.network.cut("a", "b")
    pair.send("one")
    pair.run(6)
    pair.network.mend("a", "b")
    pair.run(16)
    assert pair.closed == ["client: timed out", "server: connection reset"]


def test_who_waits_for_a_vanished_machine_asks_until_its_patience_is_over() -> None:
    """The one that opened the connection has that of a link: it asks after 2, 4 and 6 seconds."""
    pair = Pair()
    pair.run(1)
    for end in list(pair.server.ends):
        pair.network.machine("b").up = False
        pair.network.forsake(end)
    pair.run(5.5)
    assert pair.closed == []
    pair.run(1)
    assert pair.closed == ["client: timed out"]


def test_who_sends_to_a_vanished_machine_waits_for_the_user_timeout() -> None:
    pair = Pair()
    pair.run(1)
    for end in list(pair.server.ends):
        pair.network.machine("b").up = False
        pair.network.forsake(end)
    pair.network.send(pair.opened[0], ["a"])
    pair.run(4.9)
    assert pair.closed == []
    pair.run(0.5)
    assert pair.closed == ["client: timed out"]
