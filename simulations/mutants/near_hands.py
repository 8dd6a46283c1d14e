# ruff: noqa: ANN001, ANN002, ANN202, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of what clients keep while shards change hands."""

from greenroom_cluster.shard.near.served import Near
from greenroom_cluster.shard.recovery import Recovery
from greenroom_cluster.shard.roles import replica
from greenroom_cluster.shard.roles.membership import Membership
from greenroom_cluster.shard.roles.primary import Primary
from greenroom_cluster.shard.roles.replica import Replica
from simulations.mutants.near_stories import BACK_FROM_DISK, MOVED, PASSED_ON, SLOW_CLOCKS, TAKEN_OVER, WAITED
from simulations.mutants.patching import Patches, instead, mutant
from simulations.mutants.serving import serve_by


@mutant("hands over what is held", flagged=True, budget=40, plan=MOVED)
def _(patches: Patches) -> None:
    """A shard is handed over while clients may show what this primary has answered."""
    patches.set(Near, "leave", lambda self, now_ns: True)


@mutant("takes over at once from the dead", flagged=True, budget=60, plan=TAKEN_OVER)
def _(patches: Patches) -> None:
    """A backup of a primary that is known dead does not wait for the clients of that."""
    patches.set(Replica, "_quiet_until_ns", lambda self, now_ns, reason: 0)


@mutant("takes over by its own clock", flagged=True, budget=40, plan=SLOW_CLOCKS)
def _(patches: Patches) -> None:
    """A backup of a primary that is known dead waits for leases as if no clock of a client were slow."""
    patches.set(replica, "drifted", lambda span_ns: span_ns)


@mutant("writes in the quiet time", flagged=True, budget=40, plan=TAKEN_OVER)
def _(patches: Patches) -> None:
    """Writes are answered while clients may show what the former primary has answered."""
    original = Primary.submit

    def submit(self, *arguments):
        membership = self.membership
        draining = membership.draining and not membership.quiet_until_ns
        with instead(membership, draining=draining, quiet_until_ns=0):
            original(self, *arguments)

    serve_by(patches, "submit", submit)


@mutant("reads in the quiet time", flagged=True, budget=60, plan=WAITED)
def _(patches: Patches) -> None:
    """Reads show what the former primary may have logged, and shown to nobody."""

    def paused(self):
        draining = self.membership.draining and not self.membership.quiet_until_ns
        return self.replication.behind or draining or self.copy.unsettled

    patches.set(Primary, "paused", property(paused))


@mutant("repeats an answer in the quiet time", flagged=True, budget=60, plan=WAITED)
def _(patches: Patches) -> None:
    """A repeat is answered at once by the kept reply, though the former primary may have let it wait."""
    original = Primary._repeats

    def repeats(self, origin, known, command):
        with instead(self.membership, quiet_until_ns=0):
            return original(self, origin, known, command)

    patches.set(Primary, "_repeats", repeats)


@mutant("hands over in the quiet time", flagged=True, budget=60, plan=PASSED_ON)
def _(patches: Patches) -> None:
    """A shard is given to another primary, which knows of no leases, while some may yet run."""
    keep_quiet, hand_over = Membership.keep_quiet, Membership.hand_over_if_drained

    def joining(self, until_ns):
        keep_quiet(self, until_ns)
        self._join_due_ns = 0

    def hand_over_at_once(self, now_ns):
        with instead(self, quiet_until_ns=0):
            hand_over(self, now_ns)

    patches.set(Membership, "keep_quiet", joining)
    patches.set(Membership, "hand_over_if_drained", hand_over_at_once)


@mutant("comes back from disk without waiting for clients", flagged=True, budget=60, plan=BACK_FROM_DISK)
def _(patches: Patches) -> None:
    """Who recovers a shard takes its former primary for dead since long ago."""
    patches.set(Recovery, "_bereft_ns", lambda self, now_ns, *_: now_ns - 10_000_000_000)
