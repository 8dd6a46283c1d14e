"""What is common to the ways in which a joiner gets its copy: chunks that are sent and acknowledged."""


class Transfer:
    """One transfer to a joiner, as join number `join`. `mark` is how far the joiner's directory has come."""

    __slots__ = ("acknowledged", "finished", "join", "mark", "next_number", "shard_bytes")

    def __init__(self, join: int, shard_bytes: int) -> None:
        self.join = join
        self.shard_bytes = shard_bytes
        self.mark = 0
        self.next_number = 0
        self.acknowledged = -1
        self.finished = False

    @property
    def in_flight(self) -> int:
        """Chunks sent and not acknowledged."""
        return self.next_number - 1 - self.acknowledged

    @property
    def complete(self) -> bool:
        """Whether the joiner has everything."""
        return self.finished and self.in_flight == 0
