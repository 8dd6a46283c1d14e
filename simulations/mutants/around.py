# ruff: noqa: ANN001, ANN202, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of what stands around the core: supervision, the client, the drivers."""

from typing import Any

import msgspec

from greenroom import silence
from greenroom.cluster_map import ClusterMap
from greenroom.dialog import links
from greenroom.dialog.core import Dialog
from greenroom.dialog.dispatch import Dispatcher
from greenroom.dialog.ledger import Ledger
from greenroom.dialog.map_follower import MapFollower
from greenroom.dialog.runner import DialogRunner
from greenroom.silence import Silence
from greenroom_cluster.coordination import foreigners
from greenroom_cluster.coordination.claims import Claims
from greenroom_cluster.coordination.coordinator import Coordinator
from greenroom_cluster.coordination.draft import Draft
from greenroom_cluster.coordination.exchange import ConnectionClosed
from greenroom_cluster.coordination.hearing import Hearing
from greenroom_cluster.keeper import Keeper
from greenroom_cluster.links.core_runner import CoreRunner
from greenroom_cluster.node import inputs as ins
from greenroom_cluster.node.agent import Agent
from simulations.mutants.patching import Patches, instead, mutant
from simulations.mutants.stories import (
    ANEW,
    HANGS,
    JUMPED_BACK,
    LOST_WITH_SUPERVISORS,
    RESTORED,
    RESTORED_LONG,
    UNHEARD,
)

# --- ⚑ ---------------------------------------------------------------------------------------------------


@mutant("lets the controller change primaries", flagged=True)
def _(patches: Patches) -> None:
    """⚑ What is wanted is written into the configuration at once, where the wanted one is a member."""
    original = Draft.want

    def want(self, plan):
        original(self, plan)
        current = {actor.slot: key for key, actor in self.actors.items() if actor.state == "up"}
        for shard in plan:
            entry = self.shards[shard]
            first = current.get(entry.wanted[0], b"")
            if first in entry.backups:
                rest = tuple(member for member in entry.members if member != first)
                self.shards[shard] = msgspec.structs.replace(
                    entry, epoch=entry.epoch + 1, primary=first, backups=rest, nonce=b"controller"
                )

    patches.set(Draft, "want", want)


@mutant("presumes death from a closed connection", flagged=True, budget=50, plan=UNHEARD)
def _(patches: Patches) -> None:
    """⚑ An actor whose connection to the coordinator ends is published as dead."""
    original, finish = Coordinator.decide, Draft.finish
    gone: list[bytes] = []

    def decide(self, now_ns, batch, wall_us):
        gone.extend(each.sender for each in batch if isinstance(each.message, ConnectionClosed))
        return original(self, now_ns, batch, wall_us)

    def finish_buried(self):
        self.report_dead(gone)
        gone.clear()
        return finish(self)

    patches.set(Coordinator, "decide", decide)
    patches.set(Draft, "finish", finish_buried)


@mutant("presumes the death of a replaced actor", flagged=True)
def _(patches: Patches) -> None:
    """⚑ A new incarnation in a slot is taken for proof that the former one is dead."""
    original = Draft.register_actor

    def register_actor(self, actor):
        complaint = original(self, actor)
        for key, other in list(self.actors.items()):
            if other.slot == actor.slot and other.state == "replaced":
                self.actors[key] = msgspec.structs.replace(other, state="dead")
        return complaint

    patches.set(Draft, "register_actor", register_actor)


@mutant("takes a dead supervisor's actors for dead", flagged=True)
def _(patches: Patches) -> None:
    """⚑ A new supervisor reports its predecessor's actors without looking whether they still run."""
    original = Agent._take_child

    def take_child(self, event):
        if isinstance(event, ins.Looked):
            event = ins.Looked((), event.running + event.gone)
        original(self, event)

    patches.set(Agent, "_take_child", take_child)


# --- drivers ---------------------------------------------------------------------------------------------


@mutant("samples the clock before the request arrives")
def _(patches: Patches) -> None:
    """The time of a step is taken before waiting for what it acts on."""
    original = CoreRunner.step
    sampled: dict[Any, int] = {}

    def step(self, event):
        read = self._now_ns
        early = sampled.get(self, read())
        with instead(self, _now_ns=lambda: early):
            original(self, event)
        sampled[self] = read()

    patches.set(CoreRunner, "step", step)


@mutant("believes in half-open connections", budget=2000)
def _(patches: Patches) -> None:
    """Neither keep-alive nor a user timeout: a connection whose other side is gone stays."""
    for side in ("STORE", "LINK", "SERVED"):
        patches.set(silence, side, Silence(10**6, 10**6, 10**6))


@mutant("reports a death that it has not seen")
def _(patches: Patches) -> None:
    """A supervisor reports an actor dead that hangs on a record."""
    original = Agent._take_child

    def take_child(self, event):
        original(self, event)
        if isinstance(event, ins.MarksRead):
            for mark in event.marks:
                if mark.in_hand is not None:
                    self._unreported.setdefault(mark.incarnation, ())

    patches.set(Agent, "_take_child", take_child)


@mutant("never buries its predecessor's actors", budget=5, plan=LOST_WITH_SUPERVISORS)
def _(patches: Patches) -> None:
    """What a former supervisor of the node left registered stays so when its processes are gone."""
    patches.set(Agent, "_may_bury", lambda self, actor: False)


@mutant("leaves a child that hangs alone", budget=20, plan=HANGS)
def _(patches: Patches) -> None:
    """A supervisor does not end a child that stopped beating."""
    patches.set(Keeper, "hangs", lambda self, now_ns: False)


# --- the client ------------------------------------------------------------------------------------------


@mutant("shares one client id between two loops")
def _(patches: Patches) -> None:
    """Two dialogs count their requests under the same id."""
    patches.set(links, "_draw_id", lambda entropy: b"shared-by-us-all")


@mutant("flushes once", budget=20)
def _(patches: Patches) -> None:
    """A store does not note that it has sent what waited, and so never plans to send again."""
    patches.set(DialogRunner, "_flush", DialogRunner._write_all)


@mutant("never looks at its timer", budget=100)
def _(patches: Patches) -> None:
    """A store sets a timer for its deadlines and does nothing when it has run down."""

    def tick(self):
        self._timer_ns = 1 << 62

    patches.set(DialogRunner, "_tick", tick)


@mutant("repeats under a new request id")
def _(patches: Patches) -> None:
    """What was unanswered on a broken connection is sent again as a new request."""
    original = Dispatcher.detach

    def detach(self, link):
        detached = original(self, link)
        for operation in detached:
            ledger: Ledger = self._ledger
            number = ledger.next_id()
            ledger.pending[number] = ledger.pending.pop(operation.request.request_id)
            if operation.request.request_id in ledger.gatherings:
                ledger.gatherings[number] = ledger.gatherings.pop(operation.request.request_id)
            operation.request = msgspec.structs.replace(operation.request, request_id=number)
        return detached

    patches.set(Dispatcher, "detach", detach)


@mutant("a restored coordinator decides unheard", plan=RESTORED)
def _(patches: Patches) -> None:
    """A coordinator that cannot tell whether its map is the newest decides without hearing all members."""
    patches.set(Hearing, "holds_back", lambda self, *_: False)


@mutant("follows a map by its version alone", plan=RESTORED_LONG)
def _(patches: Patches) -> None:
    """A map that is newer by its version is followed, although its shards have gone back."""
    patches.set(ClusterMap, "continues", ClusterMap.newer_than)


@mutant("dismisses who is ahead by a version alone", plan=JUMPED_BACK)
def _(patches: Patches) -> None:
    """A peer that is ahead by its version alone is turned away for as long as no node shows such a map."""
    original = Claims.note

    def note(self, now_ns, sender, known, epochs, ours):
        claimed = original(self, now_ns, sender, known, epochs, ours)
        self._counted = 0
        return claimed

    patches.set(Claims, "note", note)


@mutant("calls a lost request not applied", budget=1000)
def _(patches: Patches) -> None:
    """An attempt whose connection broke does not count as one that may have been applied."""
    original = Dispatcher.detach

    def detach(self, link):
        detached = original(self, link)
        for operation in detached:
            operation.maybe = False
        return detached

    patches.set(Dispatcher, "detach", detach)


@mutant("never asks whether its map is old")
def _(patches: Patches) -> None:
    """A client keeps its first map, whatever it is told."""
    patches.set(Dialog, "_remap", lambda self, now_ns: None if self._by_shard else _first(self, now_ns))


def _first(dialog, now_ns) -> None:
    router = dialog._follower.router
    if router is None or any(each is None for each in router.primaries):
        return
    dialog._lanes.update(router)
    dialog._by_shard, dialog._shift = dialog._lanes.by_shard, dialog._lanes.shift
    for operation in list(dialog._ledger.pending.values()):
        dialog._dispatcher.dispatch(operation, now_ns)


# --- clusters created anew -------------------------------------------------------------------------------


@mutant("never goes over to another cluster", budget=5, plan=ANEW)
def _(patches: Patches) -> None:
    """A client whose cluster was created anew stays with the map that it has."""

    def succeed(self, link, _new, now_ns):
        self._board.close(link)
        self.lost(link, "another cluster", now_ns)
        return False

    patches.set(MapFollower, "_succeed", succeed)


@mutant("goes over while its cluster answers", budget=20, plan=ANEW)
def _(patches: Patches) -> None:
    """A client takes the map of another cluster as soon as it sees one."""

    def note_silence(self, _link, _now_ns):
        self._bereft = self.router is not None

    patches.set(MapFollower, "_note_silence", note_silence)


@mutant("orders maps of two clusters by version", budget=50, plan=ANEW)
def _(patches: Patches) -> None:
    """Nobody asks of which cluster a map is, so that lineage and version decide."""
    patches.set(ClusterMap, "is_foreign_to", lambda self, other: False)
    patches.set(foreigners, "are_foreign", lambda one, other: False)
