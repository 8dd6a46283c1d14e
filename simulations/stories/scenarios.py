"""Named stories: a cluster, a steady load, faults at set times, and how long a shard may go unanswered.

A story is a TOML file in `scenarios/`:

    title = "..."                 what happens, in a line
    bound_seconds = 2.0           how long a shard may be without an answer (promise 5)
    [cluster]                     fields of `plans.plan.Plan`
    nodes = 3
    [load]
    operations_per_second = 200   over all shards, in turn
    lifetime_ms = 0               sessions end this long after they were written (0: not)
    [[fault]]                     fields of `plans.plan.Fault`, with `at` in seconds
    at = 2.0
    kind = "pause"
    target = "primary of shard 0"
    seconds = 2.5
"""

import tomllib
from pathlib import Path
from random import Random
from typing import Annotated, Any

import msgspec

from greenroom.errors import UsageError
from simulations.plans.plan import Action, Fault, Plan
from simulations.runs.batch import run_plan
from simulations.runs.plan_files import check_plan
from simulations.runs.world import World

DIRECTORY = Path(__file__).parent / "scenarios"
_KINDS = ("get", "update", "patch", "get", "create")


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A steady load."""

    operations_per_second: Annotated[float, msgspec.Meta(gt=0)] = 200.0
    lifetime_ms: int = 0


class _Struck(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault as written in a file, with its time in seconds."""

    at: float
    kind: str
    target: str = ""
    seconds: float = 0.0
    amount: float = 0.0
    other: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A scenario's file."""

    title: str
    bound_seconds: Annotated[float, msgspec.Meta(gt=0)]
    cluster: dict[str, Any] = {}
    load: Load = Load()
    fault: tuple[_Struck, ...] = ()


class Story(msgspec.Struct, frozen=True):
    """A scenario as written down."""

    title: str
    bound_seconds: float
    plan: Plan


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of a scenario. `unavailable`: per shard the longest span without an answer, in seconds."""

    name: str
    title: str
    violations: list[str]
    operations: int
    answered: int
    unavailable: list[float]
    longest_unavailable_seconds: float
    bound_seconds: float

    @property
    def kept(self) -> bool:
        """Whether no rule broke and every shard answered within the bound."""
        return not self.violations and self.longest_unavailable_seconds <= self.bound_seconds


def names() -> list[str]:
    """Return the names of all scenarios."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def load(name: str) -> Story:
    """Return a scenario by its name, or by the path of its file. Raises UsageError if there is none."""
    path = Path(name) if name.endswith(".toml") else DIRECTORY / f"{name}.toml"
    if not path.exists():
        raise UsageError(f"there is no scenario {name!r}; there are: {', '.join(names())}")
    try:
        told = msgspec.convert(tomllib.loads(path.read_text()), _File, strict=False)
        plan = msgspec.convert({"seed": 1, "shards": 8, "sessions": 32, **told.cluster}, Plan)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"{path} is not a scenario, as simulations/stories/scenarios.py tells it: {error}"
        ) from None
    faults = tuple(
        Fault(each.at * 1000, each.kind, each.target, each.seconds, each.amount, each.other)
        for each in told.fault
    )
    bound = told.bound_seconds
    plan = msgspec.structs.replace(plan, callers=4 * plan.shards, faults=faults, bound_seconds=bound)
    check_plan(plan, str(path))
    return Story(told.title, bound, msgspec.structs.replace(plan, actions=_steady(plan, told.load)))


def _steady(plan: Plan, burden: Load) -> tuple[Action, ...]:
    """Every shard has callers of its own, so that a silent shard keeps nobody from asking the others."""
    random = Random(f"{plan.seed}/load")
    think_ms = 1000 * plan.callers / burden.operations_per_second
    count = int(plan.seconds * burden.operations_per_second / plan.callers)
    actions = [
        Action(
            caller=caller,
            think_ms=think_ms * random.uniform(0.5, 1.5),
            kind="create" if turn == 0 else random.choice(_KINDS),
            session=caller % plan.shards
            + plan.shards * random.randrange(max(1, plan.sessions // plan.shards)),
            lifetime_ms=burden.lifetime_ms,
        )
        for turn in range(count)
        for caller in range(plan.callers)
    ]
    return tuple(actions)


def run_scenario(name: str) -> tuple[Outcome, World]:
    """Run a scenario; return its outcome, and the world for a picture."""
    story = load(name)
    result, world = run_plan(story.plan, tracing=True)
    unavailable = [max((end - begin for begin, end in spans), default=0.0) for spans in world.silent_spans()]
    longest = max(unavailable, default=0.0)
    violations = [str(violation) for violation in result.violations]
    outcome = Outcome(
        Path(name).stem,
        story.title,
        violations,
        result.operations,
        result.answered,
        unavailable,
        longest,
        story.bound_seconds,
    )
    return outcome, world
