"""Checks after healing that every shard takes a write and a read again."""

from collections.abc import Container
from typing import Any

from greenroom import wire
from greenroom.codec import encode_data
from greenroom.dialog import operations as kinds
from greenroom.errors import GreenroomError, OutcomeUnknownError, UnavailableError
from simulations.cluster.stage import Stage
from simulations.kernel.timeline import WALL_ORIGIN_US
from simulations.workload.callers import LIFETIME_US


class Probes:
    """One fresh session a shard, created and read by a client that keeps trying.

    `lost` holds the shards that lost all their members at once.
    """

    def __init__(self, stage: Stage, lost: Container[int]) -> None:
        self.stage = stage
        self._lost = lost
        self.unanswered = set(range(stage.plan.shards))
        self._client = stage.start_client(len(stage.clients))
        for shard in sorted(self.unanswered):
            self._create(shard, 0)

    @property
    def answered(self) -> bool:
        """Whether all shards have answered."""
        return not self.unanswered

    def _create(self, shard: int, attempt: int) -> None:
        client = self._client
        point = shard * (65536 // self.stage.plan.shards)
        digest = f"probe {shard} {attempt}".encode().ljust(32)
        number = client.dialog.next_id()
        low = client.dialog.low
        request = wire.Create(
            number, low, 0, point, digest, None, WALL_ORIGIN_US, WALL_ORIGIN_US + LIFETIME_US, None, "",
            encode_data({"probe": attempt}),
        )  # fmt: skip

        def done(reply: Any, error: GreenroomError | None) -> None:
            if error is None and isinstance(reply, wire.Written):
                self._read(shard, point, digest, attempt)
            elif isinstance(error, UnavailableError | OutcomeUnknownError) or _is_full(reply):
                self._create(shard, attempt + 1)
            else:
                self.stage.violate("liveness", f"probe of shard {shard}: {reply or error}")

        client.perform(request, kinds.CREATE, done)

    def _read(self, shard: int, point: int, digest: bytes, attempt: int) -> None:
        client = self._client

        def done(reply: Any, error: GreenroomError | None) -> None:
            if error is not None:
                self._read(shard, point, digest, attempt)
            elif isinstance(reply, wire.Session):
                self.unanswered.discard(shard)
            elif shard in self._lost:
                # Its last member has died since, say an orphan that woke up: that was allowed.
                self._create(shard, attempt + 1)
            else:
                self.stage.violate(
                    "linearizable", f"probe of shard {shard}: written, acknowledged, not there"
                )

        client.perform(wire.Get(client.dialog.next_id(), point, digest), kinds.GET, done)


def _is_full(reply: Any) -> bool:
    """Peers have yet to offer what they may hold from now on."""
    return isinstance(reply, wire.Failed) and reply.code == wire.FailureCode.FULL
