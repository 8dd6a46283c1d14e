"""A probe of an actor with a disk, and what is shown with it."""

from greenroom import wire
from greenroom_cluster.coordination.messages import Proposal
from greenroom_cluster.disk.entries import (
    Entry,
    Proposed,
    decode_entries,
    encode_entries,
)
from greenroom_cluster.disk.replay import DiskCopy, Replay
from greenroom_cluster.shard import effects as fx
from greenroom_cluster.shard import inputs as ins
from greenroom_cluster.shard.disk_log import Durability, Stable
from greenroom_cluster.shard.messages import (
    PrepareOk,
    SnapshotOk,
)
from greenroom_cluster.shard.settings import HostSettings
from tests.cluster.shard.probe import FAR_US, ME, B, C, Probe

OURS, THEIRS = b"o" * 16, b"t" * 16
DIRECTORIES = {"a": OURS, "c": OURS, "b": THEIRS}
"""The directory of this actor is that of a former one, `c`."""


class DurableProbe(Probe):
    """A probe that keeps what is for the disk; nothing is synced unless told."""

    def __init__(
        self,
        durability: Durability = "fsync",
        copies: dict[int, DiskCopy] | None = None,
        settings: HostSettings | None = None,
        opened_ns: int | None = None,
        starts: dict[int, Proposed] | None = None,
    ) -> None:
        disk = Stable(
            durability=durability,
            mark=40,
            stored_bytes=1,
            copies=copies or {},
            starts=starts or {},
            opened_ns=opened_ns,
        )
        super().__init__(settings, disk=disk)
        self.entries: list[Entry] = []
        self.batches: dict[int, tuple[Entry, ...]] = {}
        self.position = 0
        self.mark = 40
        self.dropped: list[int] = []
        self.urgent = False

    def step(self, event: ins.HostInput) -> list[fx.HostEffect]:
        effects = super().step(event)
        for effect in effects:
            if isinstance(effect, fx.Persist):
                assert effect.position == self.position + 1
                self.position = effect.position
                self.entries += effect.entries
                self.batches[self.mark + 1] = (*self.batches.get(self.mark + 1, ()), *effect.entries)
                self.urgent = effect.at_once
            elif isinstance(effect, fx.DropBefore):
                self.dropped.append(effect.mark)
        return effects

    def sync(self) -> list[fx.HostEffect]:
        """Have everything synced, as one batch."""
        self.mark += 1
        return self.step(ins.Synced(self.position, self.mark, 1))

    def synced(self) -> list[fx.HostEffect]:
        """Have everything synced until nothing more is given out."""
        effects = self.sync()
        while self.host._disk is not None and self.host._disk.stable < self.position:
            effects += self.sync()
        self.effects = effects
        return effects

    def configure(self, *args: object, **named: object) -> list[fx.HostEffect]:
        named.setdefault("directories", DIRECTORIES)
        return super().configure(*args, **named)  # type: ignore[arg-type]  # passed on as they are

    def start_alone(self) -> None:
        self.configure(0, wanted="a")
        self.synced()
        self.configure(1, (ME,), nonce=self.proposal("start").nonce, wanted="a")
        self.synced()

    def become_primary(self, recipient: str = "b") -> None:
        assert recipient == "b"
        self.start_alone()
        self.configure(1, (ME,), wanted="ab")
        self.synced()
        self.connect(B)
        self.hear(B, SnapshotOk(0, 1, 1, 0, mark=9))
        self.synced()
        self.configure(2, (ME, B), nonce=self.proposal("add").nonce, wanted="ab")
        self.synced()

    def become_backup(self, primary: bytes = B, *, epoch: int = 2) -> None:
        super().become_backup(primary, epoch=epoch)
        self.synced()

    def entries_from(self, batch: int) -> list[Entry]:
        """Return what is left when all batches before one are dropped."""
        return [entry for number in self.batches if number >= batch for entry in self.batches[number]]

    def replay(self) -> Replay:
        """Return what a start would find after all that was given out."""
        replay = Replay()
        for entry in decode_entries(encode_entries(tuple(self.entries))):
            replay.take(entry)
        return replay

    def replayed(self) -> dict[int, DiskCopy]:
        """Return the copies that a start would find."""
        return self.replay().copies


def acknowledged(effects: list[fx.HostEffect]) -> list[int]:
    """Return the batches that are acknowledged."""
    messages = [effect.message for effect in effects if isinstance(effect, fx.ReplyToPeer)]
    return [message.batch for message in messages if isinstance(message, PrepareOk)]


def update(request_id: int, digest: bytes, data: bytes) -> wire.Update:
    return wire.Update(request_id, 1, 0, 0, digest, None, FAR_US, "", data, None)


def replies(effects: list[fx.HostEffect]) -> int:
    return sum(isinstance(effect, fx.ReplyToClient) for effect in effects)


def restart(
    probe: DurableProbe, settings: HostSettings | None = None, opened_ns: int | None = None
) -> DurableProbe:
    """Return the same actor after a power cut that lost nothing, as the heir of what it was."""
    found = probe.replay()
    after = DurableProbe(
        copies=found.copies, settings=settings, opened_ns=opened_ns, starts=dict(found.starts)
    )
    after.entries = list(probe.entries)
    return after


def recovered(probe: DurableProbe, members: tuple[bytes, ...] = (C,), epoch: int = 1) -> Proposal:
    """Show a restarted actor that all members are dead; return its claim."""
    probe.configure(epoch, members, wanted="ab", dead="cb")
    probe.synced()
    return probe.proposal("recover")
