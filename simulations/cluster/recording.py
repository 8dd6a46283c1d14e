"""The events of a run as spans and points in time, for pictures and figures. All times in seconds."""

from collections.abc import Iterable

import msgspec

from greenroom_cluster.shard.effects import Transition


class Life(msgspec.Struct):
    """A process of a slot, from start to end (None: still there)."""

    slot: str
    name: str
    began: float
    ended: float | None = None


class Strike(msgspec.Struct, frozen=True):
    """A fault, where and for how long."""

    kind: str
    where: str
    at: float
    seconds: float


class Configuration(msgspec.Struct, frozen=True):
    """A shard's configuration from a moment on."""

    shard: int
    epoch: int
    primary: str
    members: int
    at: float


class Turn(msgspec.Struct, frozen=True):
    """A replica took a role."""

    actor: str
    shard: int
    epoch: int
    role: str
    reason: str
    at: float


class Recording:
    """Filled while a world runs."""

    def __init__(self) -> None:
        self.lives: list[Life] = []
        self.strikes: list[Strike] = []
        self.configurations: list[Configuration] = []
        self.turns: list[Turn] = []

    def began(self, slot: str, name: str, at: float) -> None:
        """A process took a slot."""
        self.lives.append(Life(slot, name, at))

    def ended(self, name: str, at: float) -> None:
        """A process ended."""
        for life in self.lives:
            if life.name == name and life.ended is None:
                life.ended = at

    def struck(self, kind: str, where: str, at: float, seconds: float) -> None:
        """A fault struck."""
        self.strikes.append(Strike(kind, where, at, seconds))

    def configured(self, shard: int, epoch: int, primary: str, members: int, at: float) -> None:
        """A configuration was decided."""
        self.configurations.append(Configuration(shard, epoch, primary, members, at))

    def turned(self, actor: str, effect: Transition, at: float) -> None:
        """A replica took a role."""
        self.turns.append(Turn(actor, effect.shard, effect.epoch, effect.role, effect.reason, at))


def gaps(times: Iterable[float], begin: float, end: float, least: float) -> list[tuple[float, float]]:
    """Return the spans of at least that length within [begin, end] that contain none of the times."""
    found = []
    last = begin
    for time in [*sorted(times), end]:
        if begin <= time <= end:
            if time - last >= least:
                found.append((last, time))
            last = time
    return found
