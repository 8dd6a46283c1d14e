"""Rules about several coordinators on one etcd.

Only who holds the key of the leader writes a map, or marks (`leader`). Each version of the map is written
once, after the one before it (`line`).
"""

import msgspec

from greenroom.cluster_map import ClusterMap
from greenroom_cluster.coordination.etcd.layout import LayoutError, map_of
from simulations.checks.losses import LossOracle
from simulations.cluster.candidates import PREFIX
from simulations.cluster.stage import Stage
from simulations.kernel.etcd_store import Answer, EtcdStore, Transaction
from simulations.kernel.processes import Process

_decode_marks = msgspec.msgpack.Decoder(dict[bytes, int]).decode
_LEADER, _MARKS, _MAPS = (f"{PREFIX}/{name}".encode() for name in ("leader", "marks", "map/"))


class LeaderOracle:
    """Watches what one etcd carries out, and has the stage know of each map."""

    def __init__(self, stage: Stage, store: EtcdStore, losses: LossOracle) -> None:
        self._stage = stage
        self._losses = losses
        self._store = store
        self._leads: Process | None = None
        self._begun = False

    def carried_out(self, writer: Process | None, asked: Transaction, answer: Answer) -> None:
        """Judge a transaction that was carried out."""
        operations = asked.success if answer.succeeded else asked.failure
        written = [each.request_put.key for each in operations if each.request_put is not None]
        removed = any(each.request_delete_range is not None for each in operations)
        if _LEADER in written:
            self._leads = writer
            self._stage.note(f"{writer} leads")
        if not removed and not any(key == _MARKS or key.startswith(_MAPS) for key in written):
            return
        if _LEADER not in self._store.keys or self._leads is not writer:
            self._stage.violate("leader", f"{writer} has written, {self._leads} leads")
        if _MARKS in written:
            self._losses.kept(_decode_marks(self._store.keys[_MARKS].value))
        else:
            self._judge_map(writer)

    def _judge_map(self, writer: Process | None) -> None:
        keys = self._store.keys.items()
        values = {key.removeprefix(_MAPS).decode(): held.value for key, held in keys if key.startswith(_MAPS)}
        try:
            found = map_of(values)
        except LayoutError as error:
            self._stage.violate("line", f"{writer} has written what is no map: {error}")
            return
        if found is not None:
            self._take(writer, found)

    def _take(self, writer: Process | None, found: ClusterMap) -> None:
        before = self._stage.disk.map
        if self._begun and found.version != before.version + 1:
            told = f"{writer} has written version {found.version} after {before.version}"
            self._stage.violate("line", told)
            return
        self._begun = True
        self._stage.kept(found)
