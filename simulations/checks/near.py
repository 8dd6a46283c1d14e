"""What clients that keep sessions may show: nothing older than what any operation showed that has ended.

That is judged at every instant, whether somebody reads or not: whenever an operation has ended, when
something has reached a client, and when a session is shown. What a shard came back without, as it may (see
`losses`), counts as never shown.
"""

from collections.abc import Container

from greenroom import wire
from greenroom.dialog.near import Entry
from simulations.cluster.clients import ClientProcess
from simulations.cluster.stage import Stage


class NearOracle:
    """Judges all clients of one stage. Sessions are named by tenant and digest.

    `undone` has shard and version of what was committed and is lost.
    """

    def __init__(self, stage: Stage, undone: Container[tuple[int, int]]) -> None:
        self._stage = stage
        self._undone = undone
        # The versions that were shown, each when it was the highest.
        self._versions: dict[tuple[int, bytes], list[int]] = {}
        # The latest beginning of an operation that has ended and shown that there was no such session.
        self._gone_ns: dict[tuple[int, bytes], int] = {}

    def showed(self, tenant: int, digest: bytes, version: int) -> None:
        """Note that an operation has ended which showed this version."""
        versions = self._versions.setdefault((tenant, digest), [])
        if not versions or version > versions[-1]:
            versions.append(version)

    def showed_none(self, tenant: int, digest: bytes, invoked_ns: int) -> None:
        """Note that an operation has ended which showed, or made, that there is no such session."""
        place = (tenant, digest)
        self._gone_ns[place] = max(self._gone_ns.get(place, 0), invoked_ns)

    def check_all(self) -> None:
        """Judge what every client may show at this instant."""
        for client in self._stage.clients:
            self.check(client)

    def check(self, client: ClientProcess) -> None:
        """Judge what a client may show at this instant. One that is stopped shows nothing."""
        near = client.dialog.near
        if near is None or not client.alive or client.paused:
            return
        now_ns = client.machine.now_ns()
        for digest, entry in near.entries.items():
            if client.may_show(entry, now_ns):
                self._judge(client, digest, entry, "may show")

    def shown(self, client: ClientProcess, digest: bytes, session: wire.Session) -> None:
        """Judge a session that a client shows now, whatever it thinks that it may."""
        near = client.dialog.near
        entry = None if near is None else near.entries.get(digest)
        # A client whose wall clock is off shows the session with times of its own.
        if entry is None or client.dialog.clock.received(entry.session) != session:
            self._stage.violate("near", f"{client.name} shows what it does not keep")
        else:
            self._judge(client, digest, entry, "shows")

    def _judge(self, client: ClientProcess, digest: bytes, entry: Entry, verb: str) -> None:
        place, version = (client.tenant, digest), entry.session.state.version
        known = self._latest(place, self._stage.shard_at(entry.point))
        if version < known:
            self._stage.violate("near", f"{client.name} {verb} version {version}, {known} was shown before")
        elif client.filled_ns.setdefault(entry, self._stage.timeline.now) < self._gone_ns.get(place, 0):
            self._stage.violate("near", f"{client.name} {verb} version {version} of what was gone before")

    def _latest(self, place: tuple[int, bytes], shard: int) -> int:
        """Return the highest version that was shown and is not lost."""
        shown = reversed(self._versions.get(place, []))
        return next((version for version in shown if (shard, version) not in self._undone), 0)
