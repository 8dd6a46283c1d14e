"""What the real cluster takes, and the echo, which is the limit: one short measurement of each."""

import msgspec
from rich.console import Console

from benchmarks.costs.figures import SIZE
from benchmarks.orders import Measure, WorkName
from benchmarks.samples import Sample
from benchmarks.stage import Scale, Stage
from benchmarks.work.throughput import SESSIONS, without_distribution

CALLERS = (1, 64)
CELLS: tuple[tuple[str, WorkName], ...] = (("echo", "get"), ("greenroom", "get"), ("greenroom", "update"))


class Whole(msgspec.Struct, frozen=True, kw_only=True):
    """One contender at one work."""

    contender: str
    work: str
    callers: int
    sample: Sample


def measure(seconds: float, console: Console) -> list[Whole]:
    """Start both, and let them take turns."""
    stage = Stage(Scale(seconds=seconds), tuple({name for name, _ in CELLS}), console)
    found = []
    with stage.clients(["echo", "greenroom"]) as parts:
        for part in parts.values():
            part.fill(SESSIONS, SIZE)
            part.choose(SESSIONS, SESSIONS, SIZE)
        for callers in CALLERS:
            for name, work in CELLS:
                stage.say(f"costs: {name}, {work}, {callers} callers")
                sample = parts[name].client.measure(Measure(work=work, callers=callers, seconds=seconds))
                found.append(
                    Whole(contender=name, work=work, callers=callers, sample=without_distribution(sample))
                )
    return found
