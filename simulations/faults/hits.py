"""The context of a fault: the world, its target, duration and intensity.

A kind is a function that takes a `Hit`, strikes, and returns how that is taken back; `nothing` where it heals
by itself, None where there was nothing to strike.
"""

from collections.abc import Callable

from simulations.checks.oracles import Oracles
from simulations.cluster.stage import Stage
from simulations.faults.operator import Operator
from simulations.faults.poison import Poisons
from simulations.faults.targets import Target, find
from simulations.kernel.network import End, Network
from simulations.kernel.processes import Process
from simulations.kernel.traffic import TrafficRule
from simulations.workload.callers import Workload

Undo = Callable[[], None]


def nothing() -> None:
    """Take back what heals by itself."""


def setting(owner: object, name: str, value: int) -> Undo:
    """Set a number or a flag; return what unsets it."""
    setattr(owner, name, value)
    return lambda: setattr(owner, name, type(value)())


class Reach:
    """What faults can reach in one world."""

    __slots__ = ("operator", "oracles", "poisons", "stage", "workload")

    def __init__(self, stage: Stage, oracles: Oracles, poisons: Poisons, workload: Workload) -> None:
        self.stage = stage
        self.oracles = oracles
        self.poisons = poisons
        self.workload = workload
        self.operator = Operator(stage)


class Hit:
    """One fault as it strikes. What `seconds`, `amount` and `other` mean depends on the kind."""

    __slots__ = ("amount", "other", "reach", "seconds", "target")

    def __init__(self, reach: Reach, target: Target, seconds: float, amount: float, other: str) -> None:
        self.reach = reach
        self.target = target
        self.seconds = seconds
        self.amount = amount
        self.other = other

    @property
    def stage(self) -> Stage:
        """The stage on which it strikes."""
        return self.reach.stage

    @property
    def network(self) -> Network:
        """Its network."""
        return self.reach.stage.network

    def elsewhere(self) -> list[str]:
        """Return the names of all machines but the target's."""
        return sorted(self.network.machines.keys() - {self.target.machine})

    def other_machine(self) -> str:
        """Return the name of the machine of the second target, empty if there is none."""
        return find(self.stage, self.other).machine if self.other else ""

    def other_process(self) -> Process | None:
        """Return the process of the second target, None if there is none."""
        return find(self.stage, self.other).process if self.other else None

    def some_end(self) -> End | None:
        """Return one of the connections of the target's process."""
        process = self.target.process
        ends = [end for end in process.ends if end.open and end.peer.open] if process is not None else []
        return self.stage.random.choice(ends) if ends else None

    def traffic(self, *, back: bool = True, **change: float | str) -> Undo:
        """Change how packets fare from the target's machine to the second target's, or all others.

        And how they fare on the way back, if `back`.
        """
        here = frozenset({self.target.machine})
        there = frozenset({self.other_machine()} if self.other else self.elsewhere())
        ways = [(here, there), (there, here)] if back else [(here, there)]
        rules = [
            TrafficRule(*way, **change)  # type: ignore[arg-type]  # each keyword has a type of its own
            for way in ways
        ]
        self.network.rules += rules

        def remove() -> None:
            self.network.rules = [rule for rule in self.network.rules if rule not in rules]

        return remove

    def cut(self, *, there: list[str], out: bool = True, back: bool = True) -> Undo:
        """Cut the ways from the target's machine (`out`) to these, and from them to it (`back`)."""
        here = self.target.machine
        ways = [(here, each) for each in there if each != here] if out else []
        ways += [(each, here) for each in there if each != here] if back else []
        for way in ways:
            self.network.cut(*way)

        def mend() -> None:
            for way in ways:
                self.network.mend(*way)

        return mend
