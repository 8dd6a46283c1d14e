"""Names of the targets of faults, in plain words.

    coordinator                 the coordinator's process; of several, that of who leads
    coordinator 1               one of several
    etcd 0                      a member of etcd
    node n1                     the machine n1, with all that runs on it
    supervisor n1               the process `greenroom node` on n1
    actor n1/0                  the actor that holds that slot now
    client 0                    a client's process
    primary of shard 3          the actor that is primary by the map on disk now
    backup of shard 3           its first backup
    node of primary of shard 3  the machine of whatever follows
    supervisor of ...           its supervisor

A target is looked up when the fault strikes. `world["primary of shard 3"].pause(2.0)` does that by hand.
"""

import re

from greenroom.errors import UsageError
from simulations.cluster.actors import ActorProcess
from simulations.cluster.stage import Stage
from simulations.kernel.processes import Process

_ACTOR = r"(primary|backup) of shard \d+|actor \w+/\d+"
_TARGET = re.compile(
    rf"coordinator( \d)?|etcd \d|client \d+|{_ACTOR}|"
    rf"(node|supervisor) (n\d+|client\d+|coordinator\d?|etcd\d|of ({_ACTOR}))"
)


def check_target(name: str) -> None:
    """Raise UsageError for a name that fits nothing on any stage."""
    if not _TARGET.fullmatch(name):
        raise UsageError(
            f"{name!r} names nothing in a simulated world; names are such as 'primary of shard 3', "
            "'node of backup of shard 1', 'actor n1/0', 'supervisor n2', 'client 0', 'coordinator'"
        )


class Target:
    """The process (None if none is alive) and machine that a name stands for now."""

    def __init__(self, name: str, process: Process | None, machine: str) -> None:
        self.name = name
        self.process = process
        self.machine = machine

    def __repr__(self) -> str:
        return f"<{self.name}: {self.process or self.machine}>"


def find(stage: Stage, name: str) -> Target:
    """Return what the name stands for. Raises UsageError if nobody could know."""
    check_target(name)
    words = name.split()
    match words:
        case ["coordinator"]:
            process: Process | None = stage.coordinator
            return Target(name, process, stage.coordinator.machine.name)
        case ["coordinator", number]:
            process = stage.coordinators[int(number) % len(stage.coordinators)]
            return Target(name, process, process.machine.name)
        case ["etcd", number]:
            members = [] if stage.etcd is None else stage.etcd.members
            process = members[int(number) % len(members)] if members else None
            return Target(name, process, process.machine.name if process is not None else "")
        case ["node", node]:
            return Target(name, stage.supervisors.get(node), node)
        case ["supervisor", node]:
            return Target(name, stage.supervisors.get(node), node)
        case ["client", number]:
            process = stage.clients[int(number) % stage.plan.clients]
            return Target(name, process, process.machine.name)
        case ["actor", slot]:
            return _actor(name, _at_slot(stage, slot), slot.partition("/")[0])
        case ["primary" | "backup" as role, "of", "shard", shard]:
            entry = stage.map.shards[int(shard) % stage.plan.shards]
            member = entry.primary if role == "primary" else next(iter(entry.backups), b"")
            return _actor(name, stage.actors.get(member), "")
        case ["node" | "supervisor", "of", *rest]:
            inner = find(stage, " ".join(rest))
            return Target(name, stage.supervisors.get(inner.machine), inner.machine)
    raise UsageError(f"{name!r} names nothing in a simulated world")


def _actor(name: str, actor: ActorProcess | None, machine: str) -> Target:
    if actor is None:
        return Target(name, None, machine)
    return Target(name, actor, actor.machine.name)


def _at_slot(stage: Stage, slot: str) -> ActorProcess | None:
    supervisor = stage.supervisors.get(slot.partition("/")[0])
    return None if supervisor is None else supervisor.children.get(slot)
