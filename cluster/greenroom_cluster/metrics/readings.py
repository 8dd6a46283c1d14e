"""What a process tells of itself when it is asked: numbers under the names of `metrics.names`. Pure.

An actor counts in plain ints, and makes readings of them when it is asked. It knows nothing of Prometheus.
"""

from collections.abc import Mapping, Sequence

import msgspec

NS = 1e-9
_BITS = 64


class Spread:
    """How values lie: how many had how many bits, and their sum. To note one costs no more than two sums."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (_BITS + 1)
        self.total = 0

    def note(self, value: int) -> None:
        """Count a value, which is not negative."""
        self.counts[value.bit_length()] += 1
        self.total += value


class Reading(msgspec.Struct, array_like=True, frozen=True):
    """The value of a metric for these values of its labels.

    Of a histogram it is the sum, and `counts` says how many values had how many bits, each times `unit`.
    """

    name: str
    value: float
    labels: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    unit: float = 1.0


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[Reading])


class Readings:
    """Readings as they are collected."""

    def __init__(self) -> None:
        self.all: list[Reading] = []

    def tell(self, name: str, value: float, *labels: str) -> None:
        """Add the value of a counter or gauge."""
        self.all.append(Reading(name, value, labels))

    def tell_each(self, name: str, values: Mapping[str, float]) -> None:
        """Add values by those of the one label of the metric."""
        for label, value in values.items():
            self.tell(name, value, label)

    def tell_spread(self, name: str, spread: Spread, unit: float = 1.0) -> None:
        """Add a histogram, whose values were noted in multiples of the unit."""
        # Copied, for another thread may note more meanwhile.
        self.all.append(Reading(name, spread.total * unit, (), tuple(spread.counts), unit))

    def encoded(self) -> bytes:
        """Return all of them, to be sent to another process."""
        return _encode(self.all)


def decode_readings(data: bytes) -> Sequence[Reading]:
    """Return what was encoded. Raises msgspec.ValidationError for anything else."""
    return _decoder.decode(data)
