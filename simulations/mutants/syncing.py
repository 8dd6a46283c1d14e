# ruff: noqa: ANN001, ANN003, ANN202, ARG005  mutants reach into what they break, and are not typed code
"""Mutants of what is next on a disk: when a log is synced, what a sync covers, and what follows a failure."""

from msgspec.structs import replace

from greenroom_cluster.links.disk_schedule import DiskSchedule
from simulations.mutants.durable import SMALL
from simulations.mutants.patching import Patches, mutant
from simulations.plans.plan import Action, Fault

FAILS_TO_SYNC = replace(SMALL, faults=(Fault(900, "fail sync", "backup of shard 0", 0.1),))
"""The syncs of a backup's disk fail for a moment, amid writes."""

LONG_INTERVAL = replace(SMALL, durability=("interval",), interval_seconds=20.0)
"""What need not be synced at once may wait for long."""

ONLY_WRITES = replace(
    SMALL,
    durability=("interval",),
    interval_seconds=0.5,
    actions=tuple(
        Action(number % 6, 5.0 + number * 7 % 11, "create" if number < 6 else "update", number % 6)
        for number in range(1200)
    ),
)
"""Nothing that is written has to be synced at once."""


@mutant("counts what is written during a sync as synced", budget=20, plan=SMALL)
def _(patches: Patches) -> None:
    """A sync is taken to cover all that was written before it ended."""

    def ended(self):
        self._covered = self._written
        return self._covered

    patches.set(DiskSchedule, "ended", ended)


@mutant("lets what others wait for wait for the interval", budget=20, plan=LONG_INTERVAL)
def _(patches: Patches) -> None:
    """With interval, nothing is synced before half of that is over."""
    original = DiskSchedule.wrote
    patches.set(DiskSchedule, "wrote", lambda self, effect: original(self, replace(effect, at_once=False)))


@mutant("syncs only what others wait for", budget=20, plan=ONLY_WRITES)
def _(patches: Patches) -> None:
    """With interval, what need not be synced at once never is."""
    original = DiskSchedule.__init__

    def init(self, interval_ns=0, **others):
        original(self, interval_ns * 1000, **others)

    patches.set(DiskSchedule, "__init__", init)


@mutant("wakes the thread that syncs only once", budget=20, plan=SMALL)
def _(patches: Patches) -> None:
    """The loop does not hear that its word was heard, and never sends another."""
    patches.set(DiskSchedule, "heard", lambda self: None)


@mutant("tries a failed sync again", budget=20, plan=FAILS_TO_SYNC)
def _(patches: Patches) -> None:
    """After a failed sync the next one is believed, though the kernel has dropped what the first lacked."""

    def fail(self):
        self._covered = 0

    patches.set(DiskSchedule, "fail", fail)
