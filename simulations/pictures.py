"""A run as one picture: time across; nodes with their actors, faults, shards and answers down.

Shards are coloured by the node of their primary, with the epoch written at each change; red spans went
unanswered. The area at the bottom is how many operations were answered per tenth of a second.
"""

from html import escape

from simulations.world import World

_COLORS = ("#4c78a8", "#59a14f", "#b07aa1", "#9c755f", "#76b7b2", "#edc948", "#ff9da7", "#bab0ac")
_LEFT = 150
_WIDTH = 1100
_ROW = 18
_HEAD = 46
_AREA = 70


class _Canvas:
    """SVG in the making. `x(seconds)` is where a moment lies."""

    def __init__(self, begin: float, end: float) -> None:
        self.begin = begin
        self.scale = (_WIDTH - _LEFT - 20) / max(end - begin, 0.001)
        self.end = end
        self.parts: list[str] = []
        self.y = _HEAD

    def x(self, seconds: float) -> float:
        return _LEFT + (min(max(seconds, self.begin), self.end) - self.begin) * self.scale

    def bar(self, begin: float, end: float, y: float, height: float, color: str, title: str) -> None:
        width = max(self.x(end) - self.x(begin), 1.0)
        self.parts.append(
            f'<rect x="{self.x(begin):.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{color}"><title>{escape(title)}</title></rect>'
        )

    def text(self, x: float, y: float, words: str, size: int = 11, anchor: str = "start") -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'
        )


def draw(world: World, title: str) -> str:
    """Return the picture of a world that has run, as SVG."""
    ready = (world.ready_ns - world.began_ns) / 1e9
    canvas = _Canvas(ready, max(world.seconds, ready + world.plan.seconds))
    _faults(canvas, world)
    _actors(canvas, world)
    _shards(canvas, world)
    _answers(canvas, world)
    _axis(canvas, title)
    height = canvas.y + 30
    body = "\n".join(canvas.parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _faults(canvas: _Canvas, world: World) -> None:
    for strike in world.recording.strikes:
        end = strike.at + strike.seconds
        canvas.bar(strike.at, end, canvas.y + 3, _ROW - 6, "#e15759", f"{strike.kind} {strike.where}")
        words = f"{strike.kind}: {strike.where}" + (f", {strike.seconds:.3g} s" if strike.seconds else "")
        near_end = canvas.x(end) > _WIDTH - 260
        place = canvas.x(strike.at) - 6 if near_end else canvas.x(end) + 6
        canvas.text(place, canvas.y + 13, words, anchor="end" if near_end else "start")
        canvas.y += _ROW
    canvas.y += 8


def _color(world: World, name: str) -> str:
    nodes = sorted(world.supervisors)
    node = name.partition("/")[0]
    return _COLORS[nodes.index(node) % len(_COLORS)] if node in nodes else "#dddddd"


def _actors(canvas: _Canvas, world: World) -> None:
    for slot in sorted({life.slot for life in world.recording.lives}):
        canvas.text(8, canvas.y + 13, f"actor {slot}")
        for life in world.recording.lives:
            if life.slot == slot and (life.ended is None or life.ended > canvas.begin):
                end = canvas.end if life.ended is None else life.ended
                canvas.bar(life.began, end, canvas.y + 2, _ROW - 4, _color(world, slot), life.name)
        canvas.y += _ROW
    canvas.y += 8


def _shards(canvas: _Canvas, world: World) -> None:
    silent = world.silent_spans()
    for shard in range(world.plan.shards):
        canvas.text(8, canvas.y + 13, f"shard {shard}")
        changes = [each for each in world.recording.configurations if each.shard == shard]
        for number, each in enumerate(changes):
            until = changes[number + 1].at if number + 1 < len(changes) else canvas.end
            if until <= canvas.begin:
                continue
            height = (_ROW - 4) if each.members > 1 else (_ROW - 4) / 2
            tip = f"epoch {each.epoch}, primary {each.primary}, {each.members} members"
            canvas.bar(each.at, until, canvas.y + 2, height, _color(world, each.primary), tip)
            if canvas.x(until) - canvas.x(each.at) > 16:
                canvas.text(canvas.x(each.at) + 3, canvas.y + 12, str(each.epoch), size=9)
        for begin, end in silent[shard]:
            canvas.bar(begin, end, canvas.y + _ROW - 6, 4, "#d62728", f"no answer for {end - begin:.2f} s")
        canvas.y += _ROW
    canvas.y += 8


def _answers(canvas: _Canvas, world: World) -> None:
    step = 0.1
    counts = [0] * (int((canvas.end - canvas.begin) / step) + 1)
    for _, seconds in world.workload.answers:
        if canvas.begin <= seconds < canvas.end:
            counts[int((seconds - canvas.begin) / step)] += 1
    most = max(counts, default=1) or 1
    bottom = canvas.y + _AREA
    canvas.text(8, canvas.y + 13, "answers per second")
    canvas.text(_LEFT - 8, canvas.y + 30, f"{most / step:.0f}", size=9, anchor="end")
    points = [f"{_LEFT},{bottom}"]
    for number, count in enumerate(counts):
        points.append(f"{canvas.x(canvas.begin + number * step):.1f},{bottom - _AREA * count / most:.1f}")
    points.append(f"{canvas.x(canvas.end):.1f},{bottom}")
    canvas.parts.append(f'<polygon points="{" ".join(points)}" fill="#8cb369"/>')
    canvas.y = bottom + 4


def _axis(canvas: _Canvas, title: str) -> None:
    canvas.text(8, 18, title, size=15)
    canvas.text(
        8, 36, "bars of shards: color of the primary's node, half height with one member, red: no answer", 10
    )
    span = canvas.end - canvas.begin
    step = next(each for each in (0.5, 1, 2, 5, 10, 30, 60) if span / each <= 14 or each == 60)
    moment = 0.0
    while moment <= span:
        place = canvas.x(canvas.begin + moment)
        canvas.parts.append(
            f'<line x1="{place:.1f}" y1="{_HEAD}" x2="{place:.1f}" y2="{canvas.y:.0f}" stroke="#ccc" '
            'stroke-width="0.5"/>'
        )
        canvas.text(place, canvas.y + 14, f"{moment:g} s", size=10, anchor="middle")
        moment += step
