# ruff: noqa: ANN001, ANN002, ANN202, ARG001, ARG005, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of what becomes of requests: exactly once, and time."""

from msgspec import structs

from greenroom import table as command_table
from greenroom import wire
from greenroom.table import CommandTable
from greenroom_cluster.shard.context import Context
from greenroom_cluster.shard.joining.snapshot import SnapshotSender
from greenroom_cluster.shard.limits.paging import LongCommand
from greenroom_cluster.shard.roles import primary
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.state.clock import ShardClock
from greenroom_cluster.shard.state.kept_replies import ClientTable
from greenroom_cluster.shard.state.stored import expiry_of
from greenroom_cluster.shard.state.table import SessionTable
from simulations.mutants.patching import Patches, mutant
from simulations.mutants.stories import LOGGED_THEN_DEPOSED, READ_LATE

# --- exactly once ----------------------------------------------------------------------------------------


@mutant("loses the results of requests at failover")
def _(patches: Patches) -> None:
    """A new primary begins without its predecessor's kept replies."""
    original = Replica.become_primary

    def become_primary(self, now_ns, wall_us, before, suspect):
        self.table.clients.by_id.clear()
        original(self, now_ns, wall_us, before, suspect)

    patches.set(Replica, "become_primary", become_primary)


@mutant("leaves kept results out of snapshots")
def _(patches: Patches) -> None:
    """A joiner gets the sessions but not the replies that clients may still ask for."""
    original = SnapshotSender.__init__

    def init(self, *arguments):
        original(self, *arguments)
        self._clients = iter(())
        self._replies = []

    patches.set(SnapshotSender, "__init__", init)


@mutant("applies an old request after its retry", budget=300, plan=READ_LATE)
def _(patches: Patches) -> None:
    """Kept replies are dropped once confirmed, but ids below the low-watermark are not refused."""
    original = ClientTable.keep

    def keep(self, kept, low, time_us):
        original(self, kept, low, time_us)
        self.by_id[kept.client].low = 0

    patches.set(ClientTable, "keep", keep)


@mutant("calls a logged request not applied", budget=100, plan=LOGGED_THEN_DEPOSED)
def _(patches: Patches) -> None:
    """A primary that steps down sends clients away without saying that their request stands in a log."""
    original = Context.redirect

    def redirect(self, request, *, appended=False):
        return original(self, request)

    patches.set(Context, "redirect", redirect)


@mutant("ends a log-out in pages after its first page", budget=1500)
def _(patches: Patches) -> None:
    """What is logged at the end removes nothing any more, however many sessions are left."""
    original = LongCommand.next_page

    def next_page(self, table, time_us, sequence, page_max):
        return ([], 0) if self.through else original(self, table, time_us, sequence, page_max)

    def last(self):
        return wire.Clean(self.command.request_id, self.command.low, 0, (), self.removed)

    patches.set(LongCommand, "next_page", next_page)
    patches.set(LongCommand, "last", last)


@mutant("gives versions anew after re-creation")
def _(patches: Patches) -> None:
    """A session that is created again counts its versions from the beginning."""
    original = CommandTable.create
    patches.set(CommandTable, "create", lambda self, command, time_us, _: original(self, command, time_us, 1))


# --- time ------------------------------------------------------------------------------------------------


@mutant("lets a backup expire sessions by its own clock", budget=1500)
def _(patches: Patches) -> None:
    """A backup removes what is over by its wall clock, without being told."""
    original = Replica.sweep

    def sweep(self, now_ns, wall_us, looks):
        if self.primary is None:
            sessions = self.table.sessions.items()
            for digest in [digest for digest, session in sessions if expiry_of(session) <= wall_us]:
                self.table._remove(digest)
        return original(self, now_ns, wall_us, looks)

    patches.set(Replica, "sweep", sweep)


@mutant("answers by an expiry that is not logged", budget=1500)
def _(patches: Patches) -> None:
    """A session is called over by the primary's clock; the next primary's clock may show less."""

    def missing(self, now_ns, time_us, over, origin, request):
        if isinstance(request, wire.Get):
            self.reply(origin, wire.Missing(request.request_id))
        else:
            self.reply(origin, wire.Listing(request.request_id, (self.shard,), ()))

    patches.set(primary.Primary, "_expire_first", missing)
    patches.set(ShardClock, "read", lambda self, now_ns, wall_us: wall_us)


@mutant("lets the shard's time go back", budget=3000)
def _(patches: Patches) -> None:
    """Each primary believes its own wall clock, whatever was stamped before."""
    patches.set(ShardClock, "read", lambda self, now_ns, wall_us: wall_us)
    patches.set(ShardClock, "heard", lambda self, time_us, now_ns: None)


@mutant("extends a session beyond its absolute deadline", budget=1500)
def _(patches: Patches) -> None:
    """Any command may set any lifetime."""

    def heading(self, digest):
        found = original(self, digest)
        return None if found is None else structs.replace(found, absolute_us=None)

    original = SessionTable._heading
    patches.set(SessionTable, "_heading", heading)
    patches.set(command_table, "_clamp", lambda expires_us, absolute_us: expires_us)
