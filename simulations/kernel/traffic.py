"""Rules for packets in flight, installed by faults."""


class TrafficRule:
    """Treatment of everything sent from one set of machines to another while the rule is installed.

    `loss` is how likely a packet is lost, which delays it by a retransmission timeout or several. Each packet
    is delayed by `delay_ns` and up to `jitter_ns` more. `queue_ns`: bytes wait that long in the sender's own
    queue, where urgent ones overtake them. `bytes_per_second`: what a connection carries (0: any amount); the
    rest waits in the same queue. `tag`: only connections of that tag are meant.
    """

    __slots__ = (
        "bytes_per_second",
        "delay_ns",
        "destinations",
        "jitter_ns",
        "loss",
        "queue_ns",
        "sources",
        "tag",
    )

    def __init__(
        self,
        sources: frozenset[str],
        destinations: frozenset[str],
        *,
        loss: float = 0.0,
        delay_ns: int = 0,
        jitter_ns: int = 0,
        queue_ns: int = 0,
        bytes_per_second: int = 0,
        tag: str = "",
    ) -> None:
        self.sources = sources
        self.destinations = destinations
        self.loss = loss
        self.delay_ns = delay_ns
        self.jitter_ns = jitter_ns
        self.queue_ns = queue_ns
        self.bytes_per_second = bytes_per_second
        self.tag = tag

    def concerns(self, source: str, destination: str, tag: str) -> bool:
        """Return whether the rule covers packets from one machine to another on a connection of that tag."""
        if source not in self.sources or destination not in self.destinations:
            return False
        return not self.tag or tag == self.tag
