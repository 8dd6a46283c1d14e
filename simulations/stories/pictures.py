"""A run as one picture: time across; faults, actors, shards and answers down.

Faults are bars, and tint the time that they last in all rows. Actors are bars while their process lives.
Shards are coloured by the node of their primary, half as high with one member only, with the epoch written at
each change; red spans went unanswered. The area at the bottom is how many operations were acknowledged.
"""

from html import escape

from simulations.cluster.recording import Strike
from simulations.runs.world import World

_COLORS = ("#6b9bd1", "#7fbf7b", "#c49bc9", "#c9a27e", "#76b7b2", "#edc948", "#ff9da7", "#bab0ac")
_FAULT = "#e8833a"
_SILENT = "#d62728"
_ANSWERS = "#8cb369"
_LEFT = 110
_WIDTH = 1120
_RIGHT = 20
_ROW = 20
_HEAD = 74
_AREA = 80
_SILENT_SECONDS = 0.1
"""Shorter spans without an answer come from chance: callers ask a shard about every 10 ms."""
_ANYWHERE = frozenset({"add node"})
_LETTER = 6.2


class _Canvas:
    """SVG in the making. `x(seconds)` is where a moment lies; `y` is where the next row begins."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin = begin
        self.scale = (_WIDTH - _LEFT - _RIGHT) / max(end - begin, 0.001)
        self.end = end
        self.parts: list[str] = []
        self.y = _HEAD

    def x(self, seconds: float) -> float:
        return _LEFT + (min(max(seconds, self.begin), self.end) - self.begin) * self.scale

    def bar(
        self, begin: float, end: float, y: float, height: float, color: str, title: str, opacity: float = 1.0
    ) -> None:
        self.box(self.x(begin), y, max(self.x(end) - self.x(begin), 1.5), height, color, title, opacity)

    def box(
        self, x: float, y: float, width: float, height: float, color: str, title: str, opacity: float = 1.0
    ) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{color}" '
            f'opacity="{opacity:g}"><title>{escape(title)}</title></rect>'
        )

    def line(self, x: float, top: float, bottom: float, color: str) -> None:
        self.parts.append(
            f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{color}"/>'
        )

    def text(
        self, x: float, y: float, words: str, size: int = 11, anchor: str = "start", color: str = "#222"
    ) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}">'
            f"{escape(words)}</text>"
        )


def draw(world: World, title: str) -> str:
    """Return the picture of a world that has run, as SVG."""
    ready = (world.ready_ns - world.began_ns) / 1e9
    canvas = _Canvas(ready, ready + world.plan.seconds)
    silent = [
        [span for span in spans if span[1] - span[0] >= _SILENT_SECONDS] for spans in world.silent_spans()
    ]
    strikes = [each for each in world.recording.strikes if each.at <= canvas.end]
    bottom = _bottom(world, strikes)
    _grid(canvas, bottom)
    for strike in strikes:
        canvas.bar(strike.at, strike.at + strike.seconds, _HEAD, bottom - _HEAD, _FAULT, strike.kind, 0.12)
    _faults(canvas, strikes)
    _actors(canvas, world)
    _shards(canvas, world, silent)
    _answers(canvas, world)
    _title(canvas, world, title, silent)
    height = bottom + 44
    body = "\n".join(canvas.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n'
        f"{body}\n</svg>\n"
    )


def _slots(world: World) -> list[str]:
    """Return the slots that had an actor, nodes in the order of their numbers."""
    slots = {life.slot for life in world.recording.lives}
    return sorted(slots, key=lambda slot: [int(part) for part in slot[1:].split("/")])


def _bottom(world: World, strikes: list[Strike]) -> int:
    rows = max(len(strikes), 1) + len(_slots(world)) + world.plan.shards
    return _HEAD + rows * _ROW + 3 * 10 + _AREA


def _grid(canvas: _Canvas, bottom: float) -> None:
    span = canvas.end - canvas.begin
    step = next(each for each in (0.5, 1, 2, 5, 10, 30, 60) if span / each <= 14 or each == 60)
    moment = 0.0
    while moment <= span + 1e-6:
        place = canvas.x(canvas.begin + moment)
        canvas.line(place, _HEAD, bottom, "#ddd")
        canvas.text(place, bottom + 15, f"{moment:g}", size=10, anchor="middle")
        moment += step
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    canvas.text(middle, bottom + 32, "seconds since the cluster was ready", size=10, anchor="middle")


def _faults(canvas: _Canvas, strikes: list[Strike]) -> None:
    canvas.text(8, canvas.y + 14, "faults" if strikes else "no faults")
    for strike in strikes:
        begin, end = canvas.x(strike.at), canvas.x(strike.at + strike.seconds)
        words = strike.kind if strike.kind in _ANYWHERE else f"{strike.kind}: {strike.where}"
        if strike.seconds:
            words += f", {strike.seconds:.3g} s"
        canvas.bar(strike.at, strike.at + strike.seconds, canvas.y + 4, _ROW - 8, _FAULT, words)
        room = _LETTER * len(words)
        if end + 6 + room < _WIDTH:
            canvas.text(end + 6, canvas.y + 14, words)
        elif begin - 6 - room > _LEFT:
            canvas.text(begin - 6, canvas.y + 14, words, anchor="end")
        else:
            canvas.text(begin + 6, canvas.y + 14, words)
        canvas.y += _ROW
    canvas.y += 10 if strikes else _ROW + 10


def _color(world: World, name: str) -> str:
    nodes = sorted(world.supervisors, key=_number)
    node = name.partition("/")[0]
    return _COLORS[nodes.index(node) % len(_COLORS)] if node in nodes else "#dddddd"


def _actors(canvas: _Canvas, world: World) -> None:
    for slot in _slots(world):
        canvas.text(8, canvas.y + 14, f"actor {slot}")
        for life in world.recording.lives:
            ended = canvas.end if life.ended is None else life.ended
            if life.slot == slot and ended > canvas.begin and life.began < canvas.end:
                canvas.bar(life.began, ended, canvas.y + 4, _ROW - 8, _color(world, slot), life.name)
                if life.began > canvas.begin:
                    canvas.line(canvas.x(life.began), canvas.y + 2, canvas.y + _ROW - 2, "#222")
        canvas.y += _ROW
    canvas.y += 10


def _shards(canvas: _Canvas, world: World, silent: list[list[tuple[float, float]]]) -> None:
    for shard in range(world.plan.shards):
        canvas.text(8, canvas.y + 14, f"shard {shard}")
        changes = [each for each in world.recording.configurations if each.shard == shard]
        for number, each in enumerate(changes):
            until = changes[number + 1].at if number + 1 < len(changes) else canvas.end
            if until <= canvas.begin or each.at >= canvas.end:
                continue
            height = (_ROW - 4) if each.members > 1 else (_ROW - 4) / 2
            tip = f"epoch {each.epoch}, primary {each.primary}, {each.members} members"
            canvas.bar(
                each.at, until, canvas.y + 2 + (_ROW - 4 - height), height, _color(world, each.primary), tip
            )
            place = canvas.x(each.at)
            canvas.line(place, canvas.y + 2, canvas.y + _ROW - 2, "#555")
            # Of changes that follow at once, the last is what one looks for.
            if canvas.x(until) - place >= 8 + _LETTER * len(str(each.epoch)):
                canvas.text(place + 3, canvas.y + 14, str(each.epoch), size=10)
        for begin, end in silent[shard]:
            words = f"no answer for {end - begin:.2f} s"
            canvas.bar(begin, end, canvas.y + 5, _ROW - 10, _SILENT, words)
            if canvas.x(end) - canvas.x(begin) > 40:
                middle = (canvas.x(begin) + canvas.x(end)) / 2
                canvas.text(
                    middle, canvas.y + 13.5, f"{end - begin:.2f} s", size=9, anchor="middle", color="white"
                )
        canvas.y += _ROW
    canvas.y += 10


def _answers(canvas: _Canvas, world: World) -> None:
    step = 0.1
    counts = [0] * max(1, round((canvas.end - canvas.begin) / step))
    for _, seconds in world.workload.answers:
        number = int((seconds - canvas.begin) / step)
        if 0 <= number < len(counts):
            counts[number] += 1
    most = max(counts) or 1
    bottom = canvas.y + _AREA
    canvas.text(8, canvas.y + 14, "acknowledged")
    canvas.text(8, canvas.y + 28, "per second")
    canvas.text(_LEFT - 6, canvas.y + 9, f"{most / step:.0f}", size=9, anchor="end")
    canvas.text(_LEFT - 6, bottom, "0", size=9, anchor="end")
    points = [f"{_LEFT},{bottom}"]
    for number, count in enumerate(counts):
        height = bottom - _AREA * count / most
        left, right = (canvas.x(canvas.begin + moment * step) for moment in (number, number + 1))
        points += [f"{left:.1f},{height:.1f}", f"{right:.1f},{height:.1f}"]
    points.append(f"{canvas.x(canvas.end):.1f},{bottom}")
    canvas.parts.append(f'<polygon points="{" ".join(points)}" fill="{_ANSWERS}"/>')
    canvas.y = bottom


def _title(canvas: _Canvas, world: World, title: str, silent: list[list[tuple[float, float]]]) -> None:
    canvas.text(8, 20, title, size=15)
    longest = max((end - begin for spans in silent for begin, end in spans), default=0.0)
    found = (
        f"no shard went {_SILENT_SECONDS:g} s without an answer"
        if not longest
        else f"{longest:.2f} s at most without an answer"
    )
    bound = f", {world.plan.bound_seconds:g} s allowed" if world.plan.bound_seconds else ""
    canvas.text(8, 39, f"{found}{bound}; {len(world.violations)} rules broken")
    place = 8.0
    legend = [(_color(world, node), f"node {node}") for node in sorted(world.supervisors, key=_number)]
    for color, words in [*legend, (_FAULT, "fault"), (_SILENT, "no answer")]:
        canvas.box(place, 50, 12, 12, color, words)
        canvas.text(place + 16, 60, words, size=10)
        place += 28 + 5.6 * len(words)
    canvas.text(place, 60, "shards: the primary's node, and the epoch; half height: one member left", size=10)


def _number(node: str) -> int:
    return int(node[1:])
