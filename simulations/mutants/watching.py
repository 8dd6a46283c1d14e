# ruff: noqa: ANN001, ANN202, ARG001, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of endings: at the client that watches, and at the primary that tells."""

from msgspec.structs import replace

from greenroom import wire
from greenroom.dialog.watches import Watches
from greenroom_cluster.shard.endings.watched import Watched
from greenroom_cluster.shard.pairs.replication import Replication
from simulations.mutants.near_stories import MOVED, STALLED, TAKEN_OVER
from simulations.mutants.patching import Patches, mutant
from simulations.plans.plan import Plan


def _watched(plan: Plan, **changes: int) -> Plan:
    """Return a story in which clients watch all sessions, and keep none."""
    return replace(plan, near_sessions=(), near_seconds=0.0, watched=(8, 8, 8), **changes)


# --- the primary's half ----------------------------------------------------------------------------------


@mutant("tells of an end before it is committed", budget=20, plan=_watched(STALLED))
def _(patches: Patches) -> None:
    """A deletion is told as it is logged."""
    init, append = Watched.__init__, Replication.append
    by_copy = {}

    def __init__(self, copy, watchers, primary):  # noqa: N807  it takes the place of one
        init(self, copy, watchers, primary)
        by_copy[id(copy)] = self

    def told(self, now_ns, time_us, client, command, size, charge):
        sequence = append(self, now_ns, time_us, client, command, size, charge)
        watched = by_copy.get(id(self.copy))
        if watched is not None and type(command) is wire.Delete and command.digest in watched._by_key:
            watched._tell(command.digest, "logout")
        return sequence

    patches.set(Watched, "__init__", __init__)
    patches.set(Replication, "append", told)


@mutant("tells nobody of a logout everywhere", budget=20, plan=_watched(STALLED))
def _(patches: Patches) -> None:
    """Only what a command names is told of."""
    original = Watched._apply

    def apply(self, decide, record):
        if type(record.command) is wire.DeleteByUser:
            return decide(record)
        return original(self, decide, record)

    patches.set(Watched, "_apply", apply)


@mutant("tells only the first who watches", budget=20, plan=_watched(STALLED))
def _(patches: Patches) -> None:
    """Of several connections that watch a session, one is told."""
    original = Watched._tell

    def tell(self, key, reason):
        self._by_key[key] = self._by_key[key][:1]
        original(self, key, reason)

    patches.set(Watched, "_tell", tell)


# --- the client's half -----------------------------------------------------------------------------------


@mutant("leaves its watches with a lost connection", budget=20, plan=_watched(STALLED))
def _(patches: Patches) -> None:
    """What was registered on a connection that is gone counts as registered."""

    def lost(self, link):
        self._pulses.pop(link, None)

    patches.set(Watches, "lost", lost)


@mutant("leaves its watches with a former primary", budget=40, plan=_watched(MOVED, shards=8, sessions=8))
def _(patches: Patches) -> None:
    """Neither the map nor the actor itself makes a client register elsewhere."""

    def remapped(self):
        self._by_shard = list(self._lanes.by_shard)
        self._renumber()

    patches.set(Watches, "remapped", remapped)
    patches.set(Watches, "_again", lambda self, shard, is_void: None)


@mutant("gives a registration up that has failed", budget=120, plan=_watched(TAKEN_OVER))
def _(patches: Patches) -> None:
    """A registration that was not answered in time is not made again."""

    def failed(self, watched, error):
        self._answered(watched)

    patches.set(Watches, "failed", failed)


@mutant("takes a session that is gone for registered", budget=20, plan=_watched(STALLED))
def _(patches: Patches) -> None:
    """The answer that there is no such session is not told."""
    original = Watches.answered

    def answered(self, now_ns, watched, link, reply):
        if isinstance(reply, wire.Missing):
            self._answered(watched)
        else:
            original(self, now_ns, watched, link, reply)

    patches.set(Watches, "answered", answered)
