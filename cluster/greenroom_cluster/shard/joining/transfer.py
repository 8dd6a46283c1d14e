"""What is common to the ways in which a joiner gets its copy: chunks that are sent and acknowledged."""

from greenroom_cluster.shard.state.log import Log


class Transfer:
    """One transfer to a joiner, as join number `join`. `mark` is how far the joiner's directory has come.

    `shard_bytes` is what the shard takes, with all that is logged up to the record `told`.
    """

    __slots__ = ("acknowledged", "finished", "join", "mark", "next_number", "shard_bytes", "told")

    def __init__(self, join: int, settled_bytes: int, committed: int) -> None:
        self.join = join
        self.shard_bytes = settled_bytes
        self.told = committed
        self.mark = 0
        self.next_number = 0
        self.acknowledged = -1
        self.finished = False

    def measure(self, log: Log) -> None:
        """Count what was logged since the transfer began, and is not in the table that was measured."""
        self.shard_bytes += log.charge_after(self.told)
        self.told = log.appended

    @property
    def progress(self) -> tuple[int, int]:
        """How many of its sessions were sent, and how many there are."""
        return 0, 0

    @property
    def named(self) -> bool:
        """Whether a session in it belongs to another namespace than `default`."""
        return False

    @property
    def in_flight(self) -> int:
        """Chunks sent and not acknowledged."""
        return self.next_number - 1 - self.acknowledged

    @property
    def complete(self) -> bool:
        """Whether the joiner has everything."""
        return self.finished and self.in_flight == 0
