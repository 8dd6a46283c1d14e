"""A coordinator with a file: what is its own beside `serving`, which brings what arrives and sends.

Its disk takes its time. After a crash only what is on disk is known, so a write under way is there whole or
not at all.
"""

from collections.abc import Callable
from random import Random

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination import service as fx
from greenroom_cluster.coordination.adoption import Adoption
from greenroom_cluster.coordination.coordinator import CoordinatorSettings
from greenroom_cluster.coordination.genesis import ClusterOptions, blank_map
from greenroom_cluster.coordination.service import CoordinationService
from greenroom_cluster.planning.controller import ControllerSettings
from simulations.cluster.connections import CLUSTER, Codec
from simulations.cluster.serving import Coordinating, MapWatcher, Server
from simulations.kernel.network import Network
from simulations.kernel.timeline import MILLISECOND, Machine


class Disk:
    """What survives a crash of the coordinator. `write_ns` is how long a write with its fsync takes.

    `marks` are how far directories have come. `copies` are backups: every map that was ever on it, with them.
    `vouched` is the map that this boot of the host is known to have written last, in a place that no backup
    restores. Once `lost`, the map is to be made anew from what actors have on theirs.
    """

    def __init__(self, first: ClusterMap) -> None:
        self.map = first
        self.vouched: ClusterMap | None = first
        self.marks: dict[bytes, int] = {}
        self.copies: list[tuple[ClusterMap, dict[bytes, int]]] = [(first, {})]
        self.write_ns = MILLISECOND
        self.lost = False

    def lose(self) -> None:
        """Have nothing left on it."""
        known, alone = self.map, self.map.recover_alone_seconds
        options = ClusterOptions(
            CLUSTER, known.shard_count, known.replicas, recover_alone_seconds=alone, adopt_directories=True
        )
        self.map = self.vouched = blank_map(options)
        self.marks, self.copies, self.lost = {}, [(self.map, {})], True


class CoordinatorProcess(Coordinating):
    """One run of a coordinator with a file. If it began without a map, it gathers what directories know.

    `crash_at_write` ("before" or "after" the disk has it) kills it at its next write.
    """

    def __init__(
        self, network: Network, machine: Machine, random: Random, disk: Disk, settings: CoordinatorSettings
    ) -> None:
        super().__init__(network, machine, "coordinator", random)
        self.disk = disk
        if disk.lost:
            # The number of shards is in the directories.
            alone, replicas = disk.map.recover_alone_seconds, disk.map.replicas
            options = ClusterOptions(CLUSTER, None, replicas, recover_alone_seconds=alone)
            self.adoption = Adoption(options, machine.now_ns())
        proven = disk.map is disk.vouched
        if not proven:
            disk.vouched = None
            network.happened["coordinator unproven"] += 1
        self.service = CoordinationService(
            disk.map,
            settings,
            ControllerSettings(),
            machine.now_ns(),
            machine.wall_us() // 1000,
            proven=proven,
            marks=disk.marks,
            adoption=self.adoption,
        )
        self._writing: fx.Persist | None = None

    def run(self, codec: Codec, oracles: MapWatcher, identity: bytes) -> None:
        """Listen and begin to plan."""
        self.oracles = oracles
        self.server = Server(self, codec, self.service, self, identity)
        self.server.begin()

    # --- the disk ----------------------------------------------------------------------------------------

    def persist(self, written: fx.Persist, done: Callable[[], None]) -> None:
        """Write a map."""
        self._writing = written
        self.timeline.after(self.disk.write_ns, self._write_ended, written, done)

    def keep_marks(self, marks: dict[bytes, int], done: Callable[[], None]) -> bool:
        """Write marks, at once."""
        del done
        self.disk.marks = marks
        return True

    def vouch(self) -> None:
        """Note that the map on the disk is the newest."""
        self.disk.vouched = self.disk.map

    def _write_ended(self, written: fx.Persist, done: Callable[[], None]) -> None:
        if not self.alive:
            return
        crash, self.crash_at_write = self.crash_at_write, ""
        if crash:
            self.network.happened[f"coordinator crash {crash} persisting"] += 1
        if crash != "before":
            self._save(written)
        self._writing = None
        if crash:
            self.kill()
        else:
            self.tell(0, done)

    def _save(self, written: fx.Persist) -> None:
        if self.oracles is not None:
            self.oracles.persisted(self.disk.map, written.map)
        if self.disk.lost:
            self.network.happened["map made of directories"] += 1
        self.disk.map, self.disk.lost = written.map, False
        if written.vouched:
            self.disk.vouched = written.map
        self.disk.copies.append((written.map, self.disk.marks))

    def kill(self) -> None:
        """End it at once; a write under way is on disk whole, or not at all."""
        writing, self._writing = self._writing, None
        if self.alive and writing is not None and self.random.random() < 0.5:
            self._save(writing)
        super().kill()
