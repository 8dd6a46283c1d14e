"""Names for what a fault may strike, read the way one would say them.

    coordinator                 the coordinator's process
    node n1                     the machine n1, with all that runs on it
    supervisor n1               the process `greenroom node` on n1
    actor n1/0                  whoever takes that slot now
    client 0                    a client's process
    primary of shard 3          the actor that is primary by the map on disk now
    backup of shard 3           its first backup
    node of primary of shard 3  the machine of whatever follows
    supervisor of ...           its supervisor

A target is looked up when the fault strikes. `world["primary of shard 3"].pause(2.0)` does that by hand.
"""

import re
from typing import TYPE_CHECKING

from greenroom.errors import UsageError
from simulations.actors import ActorProcess
from simulations.processes import Process

if TYPE_CHECKING:
    from simulations.world import World


_ACTOR = r"(primary|backup) of shard \d+|actor \w+/\d+"
_TARGET = re.compile(
    rf"coordinator|client \d+|{_ACTOR}|(node|supervisor) (n\d+|client\d+|coordinator|of ({_ACTOR}))"
)


def check_target(name: str) -> None:
    """Raise UsageError for what names nothing in any world."""
    if not _TARGET.fullmatch(name):
        raise UsageError(
            f"{name!r} names nothing in a simulated world; names are such as 'primary of shard 3', "
            "'node of backup of shard 1', 'actor n1/0', 'supervisor n2', 'client 0', 'coordinator'"
        )


class Target:
    """What a name stands for now: a process (None if there is none alive), and a machine's name."""

    def __init__(self, world: "World", name: str, process: Process | None, machine: str) -> None:
        self.world = world
        self.name = name
        self.process = process
        self.machine = machine

    def __repr__(self) -> str:
        return f"<{self.name}: {self.process or self.machine}>"

    def strike(self, kind: str, *, seconds: float = 0.0, amount: float = 0.0, other: str = "") -> None:
        """Inject a fault of that kind now."""
        self.world.faults.inject(kind, self.name, seconds=seconds, amount=amount, other=other)

    def pause(self, seconds: float) -> None:
        """Stop the process for so long."""
        self.strike("pause", seconds=seconds)

    def kill(self) -> None:
        """End an actor; its supervisor starts another."""
        self.strike("kill actor")

    def cut(self, seconds: float, *, other: str = "", one_way: bool = False) -> None:
        """Cut the machine off from all others, or from one."""
        kind = "cut one way" if one_way else "cut between" if other else "cut off"
        self.strike(kind, seconds=seconds, other=other)


def find(world: "World", name: str) -> Target:
    """Return what the name stands for. Raises UsageError if nobody could know."""
    check_target(name)
    words = name.split()
    match words:
        case ["coordinator"]:
            process: Process | None = world.coordinator
            return Target(world, name, process, "coordinator")
        case ["node", node]:
            return Target(world, name, world.supervisors.get(node), node)
        case ["supervisor", node]:
            return Target(world, name, world.supervisors.get(node), node)
        case ["client", number]:
            process = world.clients[int(number) % world.plan.clients]
            return Target(world, name, process, process.machine.name)
        case ["actor", slot]:
            return _actor(world, name, _at_slot(world, slot), slot.partition("/")[0])
        case ["primary" | "backup" as role, "of", "shard", shard]:
            entry = world.map.shards[int(shard) % world.plan.shards]
            member = entry.primary if role == "primary" else next(iter(entry.backups), b"")
            return _actor(world, name, world.actors.get(member), "")
        case ["node" | "supervisor", "of", *rest]:
            inner = find(world, " ".join(rest))
            return Target(world, name, world.supervisors.get(inner.machine), inner.machine)
    raise UsageError(f"{name!r} names nothing in a simulated world")


def _actor(world: "World", name: str, actor: ActorProcess | None, machine: str) -> Target:
    if actor is None:
        return Target(world, name, None, machine)
    return Target(world, name, actor, actor.machine.name)


def _at_slot(world: "World", slot: str) -> ActorProcess | None:
    supervisor = world.supervisors.get(slot.partition("/")[0])
    return None if supervisor is None else supervisor.children.get(slot)
