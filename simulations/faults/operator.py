"""The operator of a world: restarts what should run, and forgets nodes whose machines rebooted."""

from functools import partial

from greenroom import wire
from greenroom_cluster.coordination.messages import Accepted, ForgetNode, Rejected
from simulations.cluster.connections import holder
from simulations.cluster.coordinator_links import CoordinatorLink
from simulations.cluster.stage import Stage
from simulations.kernel.processes import Process
from simulations.kernel.timeline import MILLISECOND

_LOOK_NS = 1000 * MILLISECOND


def _forget(node: str, number: int) -> ForgetNode:
    return ForgetNode(number, node)


class Operator:
    """The operator of one world."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._link: CoordinatorLink | None = None
        self._rebooting: set[str] = set()
        # Those that were called gone, by node.
        self._gone: dict[str, set[bytes]] = {}

    def start_again(self, node: str) -> None:
        """Start a node's supervisor, unless its machine is without power, or waits for an operator."""
        supervisor = self._stage.supervisors[node]
        if supervisor.machine.up and not supervisor.removed and node not in self._rebooting:
            self._stage.start_node(node)

    def give_up(self, node: str, directories: set[bytes]) -> None:
        """An operator has the node forgotten as long as shards wait for these directories, which are lost."""
        stage = self._stage
        waiting = any(actor.directory in directories for actor in stage.map.actors.values())
        # A node of which nothing is heard though it runs is cut off. It is not gone, nor are the other
        # directories there: an operator sees to its network first.
        if waiting and not self._is_cut_off(node):
            self._calling().call(lambda number: ForgetNode(number, node), lambda _: None)
        # A map that is made anew may name them yet.
        if waiting or node in self._rebooting or stage.disk.lost:
            stage.timeline.after(_LOOK_NS, self.give_up, node, directories)

    def _is_cut_off(self, node: str) -> bool:
        return self._runs(node) and (self._is_cut(node) or not self._stage.supervisors[node].link.up)

    def _runs(self, node: str) -> bool:
        machine = self._stage.supervisors[node].machine
        return any(actor.alive and actor.machine is machine for actor in self._stage.actors.values())

    def _is_cut(self, node: str) -> bool:
        network = self._stage.network
        here, there = self._stage.supervisors[node].machine.name, self._stage.coordinator.machine.name
        return network.is_cut(here, there) or network.is_cut(there, here)

    def forget(self, node: str) -> None:
        """An operator has a node forgotten that in truth is just coming back.

        Not one that runs and is cut off: its word would be that no process of it runs.
        """
        if self._runs(node) and self._is_cut(node):
            return
        self._calling().call(partial(_forget, node), lambda _: None)

    def forget_who_left(self) -> None:
        """An operator has nodes forgotten that a restored map names, although they left after it was made."""
        stage = self._stage
        left = [node for node in stage.map.nodes if stage.supervisors[node].removed]
        for node in left:
            stage.network.happened["forgot who had left"] += 1
            self.forget(node)
        if left:
            stage.timeline.after(_LOOK_NS, self.forget_who_left)

    def watch_adoption(self) -> None:
        """An operator gives up what a map made anew still waits for once all directories have come.

        A directory that gave up a copy is awaited, for it knew a later configuration then; and who runs in
        it does not say which. Only an operator knows that no other one is left.
        """
        stage = self._stage
        if not stage.disk.lost:
            return
        adoption = stage.coordinator.adoption if stage.coordinator.alive else None
        if adoption is not None and adoption.directories == len([*stage.directories]):
            for node in adoption.wanting().awaited:
                stage.network.happened["given up for a new map"] += 1
                self._calling().call(partial(_forget, node), lambda _: None)
        stage.timeline.after(_LOOK_NS, self.watch_adoption)

    def _calling(self) -> CoordinatorLink:
        stage = self._stage
        if self._link is None:
            machine = stage.network.machine("operator")
            process = Process(stage.network, machine, "operator", stage.random)
            process.holder = holder("operator", "ops")
            identity = stage.random.randbytes(16)
            self._link = CoordinatorLink(process, stage.codec, identity, wire.ROLE_OPERATOR)
            self._link.start()
        return self._link

    def forget_and_restart(self, node: str) -> None:
        """An operator says that the rebooted machine's actors are gone, then starts the node again."""
        stage = self._stage
        self._rebooting.add(node)
        link = self._calling()
        named = {actor.incarnation for actor in stage.map.actors.values() if actor.node == node}

        def answered(reply: Accepted | Rejected | None) -> None:
            if isinstance(reply, Accepted) or (reply is not None and "no node" in reply.reason):
                self._rebooting.discard(node)
                self._gone.setdefault(node, set()).update(named)
                stage.start_node(node)
            else:
                stage.timeline.after(300 * MILLISECOND, self.forget_and_restart, node)

        link.call(lambda number: ForgetNode(number, node), answered)

    def say_again(self) -> None:
        """Stop and forget nodes once more, where a map that was put back knows nothing of the first time."""
        stage = self._stage
        for node, gone in self._gone.items():
            known = [stage.map.actors[each] for each in gone if each in stage.map.actors]
            supervisor = stage.supervisors[node]
            if all(each.state == "dead" for each in known) or not supervisor.machine.up:
                continue
            for actor in stage.actors.values():
                if actor.machine is supervisor.machine:
                    actor.kill()
            supervisor.kill()
            self.forget_and_restart(node)
