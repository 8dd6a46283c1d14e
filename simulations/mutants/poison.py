# ruff: noqa: ANN001, ANN202, ARG001, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of what spares a shard the record that ended its primary."""

import msgspec

from greenroom_cluster import suspect_records
from greenroom_cluster.coordination import draft, rules
from greenroom_cluster.shard.clients import administration
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.suspension import Suspension
from greenroom_cluster.suspect_records import Watch
from simulations.mutants.patching import Patches, mutant
from simulations.mutants.stories import CRASHES, HANGS, KILLED_AT_WORK, SLOW


@mutant("applies the record that ended its primary", budget=20, plan=CRASHES)
def _(patches: Patches) -> None:
    """A backup that takes over applies the whole log, the suspect too."""
    patches.set(Replica, "_holds", lambda self, suspect: False)


@mutant("forgets the suspect at a takeover", budget=20, plan=CRASHES)
def _(patches: Patches) -> None:
    """The configuration of a takeover does not carry what was noted of the one before."""
    original = rules.decide

    def decide(situation):
        verdict = original(situation)
        if verdict.entry is None:
            return verdict
        return msgspec.structs.replace(verdict, entry=msgspec.structs.replace(verdict.entry, suspect=None))

    patches.set(draft, "decide", decide)


@mutant("tells of a hang when the actor is killed", budget=20, plan=HANGS)
def _(patches: Patches) -> None:
    """A record is suspected only once its actor has ended, long after another has taken over."""
    patches.set(suspect_records, "HANG_SECONDS", 60.0)


@mutant("suspects the record in hand of whoever is killed", budget=20, plan=KILLED_AT_WORK)
def _(patches: Patches) -> None:
    """A SIGKILL alone accuses the record, whatever the actor had spent on it."""

    def ended(self, in_hand, busy, *, crashed):
        self._conclude(in_hand)

    patches.set(Watch, "ended", ended)


@mutant("drops a record without an answer", budget=20, plan=CRASHES)
def _(patches: Patches) -> None:
    """A dropped command leaves no kept reply, so that a repeat of it is logged again."""
    patches.set(Suspension, "refuse_for_good", lambda self, clients: None)


@mutant("drops what the former primary may still acknowledge", budget=100, plan=SLOW)
def _(patches: Patches) -> None:
    """A record is dropped although the actor that is busy with it has not ended."""
    original = administration._refusal

    def refusal(context, replica, request):
        found = original(context, replica, request)
        return None if found is not None and "has not ended" in found.detail else found

    patches.set(administration, "_refusal", refusal)
