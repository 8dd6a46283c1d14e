"""What an operator should do now, and the commands for it.

What `greenroom health` warns of comes first, word by word. Then what it is silent about because nothing is at
risk yet: nodes that are away, actors that do not answer, and what goes on by itself.
"""

import re
import shlex
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from greenroom_cluster.crowding import ANOTHER_NODE
from greenroom_cluster.shard_states import ALONE, JOINING, UNAVAILABLE
from greenroom_cluster.shortages import ADD_NODE

if TYPE_CHECKING:
    from greenroom_cluster.cluster_status import ClusterStatus

Level: TypeAlias = Literal["act", "watch", "none"]
"""Whether an operator should do something, see how it goes on, or neither."""

_COMMAND = re.compile(r"`(greenroom [^`]+)`")
_ADDRESSED = {"forget-node": "--coordinator", "drop-record": "--connect"}
NEW_NODE = "NAME"


class Advice(msgspec.Struct, frozen=True):
    """One thing that an operator should know, with the commands that may follow."""

    level: Level
    text: str
    commands: tuple[str, ...] = ()


def advice(found: "ClusterStatus") -> list[Advice]:
    """Return what an operator should do now, the most urgent first; never nothing."""
    told = [Advice("act", line, _commands_of(found, line)) for line in found.warnings()]
    told += _of_nodes(found, " ".join(each.text for each in told))
    told += _of_actors(found)
    told += _of_shards(found)
    return told or [Advice("none", "Nothing to do: every shard has all its replicas, apart from each other.")]


def _commands_of(found: "ClusterStatus", line: str) -> tuple[str, ...]:
    commands = [_addressed(found, each) for each in dict.fromkeys(_COMMAND.findall(line))]
    if ADD_NODE in line or ANOTHER_NODE in line:
        commands.append(_start_command(found, NEW_NODE))
    return tuple(commands)


def _of_nodes(found: "ClusterStatus", told: str) -> list[Advice]:
    """Advise on nodes that are away, unless that was said already."""
    advised = []
    for node in found.nodes:
        forget = f"greenroom forget-node {node.name}"
        if node.state == "leaving":
            advised.append(Advice("watch", f"node {node.name} hands over its shards, and stops after that"))
        elif node.state != "up" and f"`{forget}`" not in told:
            text = f"node {node.name} is {node.state}: start it again, or forget it if it is gone for good"
            commands = (_start_command(found, node.name), _addressed(found, forget))
            advised.append(Advice("act", text, commands))
    return advised


def _of_actors(found: "ClusterStatus") -> list[Advice]:
    up = {node.name for node in found.nodes if node.state == "up"}
    silent = [
        actor.slot
        for actor in found.actors
        if actor.state == "up" and not actor.reachable and actor.slot.rpartition("/")[0] in up
    ]
    if not silent:
        return []
    who = f"actor {silent[0]} does" if len(silent) == 1 else f"actors {', '.join(silent)} do"
    text = f"{who} not answer: the node starts again what ends or hangs; if it lasts, restart the node"
    return [Advice("watch", text)]


def _of_shards(found: "ClusterStatus") -> list[Advice]:
    states = found.states()
    advised = []
    if states[ALONE] and found.nodes_up < found.replicas:
        text = (
            f"{_shards(states[ALONE])} one replica only, for {found.nodes_up} of at least {found.replicas} "
            "nodes are up: start another node"
        )
        advised.append(Advice("act", text, (_start_command(found, NEW_NODE),)))
    elif states[ALONE]:
        advised.append(Advice("watch", f"{_shards(states[ALONE])} one replica only: another is being found"))
    if states[JOINING]:
        text = f"{_shards(states[JOINING])} a replica to come: it is being copied, and nothing need be done"
        advised.append(Advice("watch", text))
    if states[UNAVAILABLE] and not (found.waiting or found.missing_directories):
        text = f"{_shards(states[UNAVAILABLE])} no primary that serves: a takeover takes some seconds"
        advised.append(Advice("watch", text))
    return advised


def _shards(count: int) -> str:
    return f"{count} shard{' has' if count == 1 else 's have'}"


def _addressed(found: "ClusterStatus", command: str) -> str:
    """Return a command with the address to ask, and the name of the cluster."""
    verb = command.split()[1]
    if (option := _ADDRESSED.get(verb)) is None:
        return command
    where = _coordinators(found) if option == "--coordinator" else _node(found)
    return " ".join([command, *_options(option, where), *_options("--cluster", found.cluster)])


def _start_command(found: "ClusterStatus", name: str) -> str:
    options = [*_options("--coordinator", _coordinators(found)), *_options("--cluster", found.cluster)]
    return " ".join(["greenroom node --name", shlex.quote(name), *options])


def _options(option: str, value: str) -> tuple[str, ...]:
    return (option, shlex.quote(value)) if value else ()


def _coordinators(found: "ClusterStatus") -> str:
    return ",".join(filter(None, (found.coordinator.address, *found.coordinator.others)))


def _node(found: "ClusterStatus") -> str:
    return next((node.address for node in found.nodes if node.state == "up"), "")
