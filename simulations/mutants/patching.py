"""Mutants: known mistakes, planted for the length of a `with` and taken out again.

Production code knows nothing of them: a mutant replaces parts of the product from outside, never of the
simulated world.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from types import FunctionType
from typing import Any

import msgspec

from simulations.plans.plan import Plan


class Patches:
    """Attributes that were replaced, and what stood there."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute of a class or module. Raises TypeError if a default is not what it was."""
        former = owner.__dict__[name]
        _check_defaults(former, value)
        self._undo.append((owner, name, former))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back."""
        for owner, name, value in reversed(self._undo):
            setattr(owner, name, value)
        self._undo.clear()


def _check_defaults(former: Any, value: Any) -> None:
    """A mutant makes the mistake that it names, and none by a default that has changed since."""
    if not (isinstance(former, FunctionType) and isinstance(value, FunctionType)):
        return
    defaults = {each.name: each.default for each in signature(former).parameters.values()}
    for each in signature(value).parameters.values():
        if each.default is not each.empty and each.default != defaults.get(each.name, each.default):
            raise TypeError(f"{former.__qualname__} has another default of {each.name} by now")


@contextmanager
def instead(owner: Any, **values: Any) -> Iterator[None]:
    """Have these attributes of an object changed for the length of a `with`."""
    former = {name: getattr(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in former.items():
            setattr(owner, name, value)


Plant = Callable[[Patches], None]


class Mutant(msgspec.Struct, frozen=True):
    """One mistake. `flagged`: the rule it breaks closed a counterexample of the model (⚑ in the design).

    `budget`: within how many seeds it must be found. `plan`: a story made for it, run under those seeds,
    where what it takes is too rare for faults that strike at random.
    """

    name: str
    mistake: str
    plant: Plant
    flagged: bool
    budget: int
    plan: Plan | None = None


MUTANTS: dict[str, Mutant] = {}


def mutant(
    name: str, *, flagged: bool = False, budget: int = 500, plan: Plan | None = None
) -> Callable[[Plant], Plant]:
    """Register a mutant; what is wrong with it is the docstring of the function that plants it."""

    def register(plant: Plant) -> Plant:
        MUTANTS[name] = Mutant(name, (plant.__doc__ or "").strip(), plant, flagged, budget, plan)
        return plant

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Have the mutant of that name in place."""
    patches = Patches()
    try:
        MUTANTS[name].plant(patches)
        yield
    finally:
        patches.undo()
