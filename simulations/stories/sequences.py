"""An exchange as a picture: a line for each party, time downwards, an arrow for each message.

Rows follow each other at one distance, whatever time passes between them; the time stands at the left. The
colours suit a light and a dark page: the picture brings its own ground, as the reader's system has it.
"""

import textwrap
from html import escape

from simulations.stories.exchanges import Exchange, Message, Moment

_WIDTH, _LEFT, _RIGHT = 920, 120, 80
_TOP, _ROW = 118, 34
_ABOUT_CHARACTERS = 128
_STYLE = """
.ground{fill:#ffffff} .ink{fill:#1f2a33} .soft{fill:#4a5560}
.line{stroke:#7d8790} .arrow{stroke:#2f6f4f} .tip{fill:#2f6f4f}
.lost{stroke:#b3261e;fill:none} .ended{fill:#b3261e} .party{fill:#eef6f1;stroke:#2f6f4f}
.moment{fill:#fdf6e9;stroke:#9a6b1f}
@media (prefers-color-scheme: dark){
.ground{fill:#15191d} .ink{fill:#e7ecef} .soft{fill:#aab4bc}
.line{stroke:#7d8790} .arrow{stroke:#6fc39a} .tip{fill:#6fc39a}
.lost{stroke:#ff8a80} .ended{fill:#ff8a80} .party{fill:#1d2b24;stroke:#6fc39a}
.moment{fill:#2c2416;stroke:#d9a441}
}
"""


def draw_exchange(exchange: Exchange) -> str:
    """Return the picture of an exchange, as SVG."""
    about = textwrap.wrap(exchange.about, _ABOUT_CHARACTERS)
    top = _TOP + 18 * len(about)
    step = (_WIDTH - _LEFT - _RIGHT) / (len(exchange.parties) - 1)
    places = {party: _LEFT + number * step for number, party in enumerate(exchange.parties)}
    rows = [top + 44 + _ROW * number for number in range(len(exchange.events))]
    height = rows[-1] + 40
    parts = [_text(24, 34, exchange.title, "ink", size=17, weight="bold")]
    parts += [_text(24, 58 + 18 * number, line, "soft", size=13) for number, line in enumerate(about)]
    parts += _lifelines(exchange, places, top, rows, height)
    for event, y in zip(exchange.events, rows, strict=True):
        parts.append(_text(16, y + 4, f"{event.at_ms:.1f} ms", "soft", size=12))
        parts += _arrow(event, places, y) if isinstance(event, Message) else _moment(event, places, y)
    body = "\n".join(parts)
    told = "; ".join(_told(event) for event in exchange.events)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="DejaVu Sans, Verdana, sans-serif" role="img" aria-labelledby="title description">\n'
        f'<title id="title">{escape(exchange.title)}</title>\n'
        f'<desc id="description">{escape(f"{exchange.about} {told}")}</desc>\n'
        f"<style>{_STYLE}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        'orient="auto"><path class="tip" d="M0 0 10 5 0 10z"/></marker></defs>\n'
        f'<rect class="ground" width="{_WIDTH}" height="{height}" rx="10"/>\n{body}\n</svg>\n'
    )


def _told(event: Message | Moment) -> str:
    """Return an event in words, for who cannot see the picture."""
    if isinstance(event, Moment):
        return f"{event.at_ms:.1f} ms: {event.where} {event.words}"
    lost = " (lost)" if event.lost else ""
    return f"{event.at_ms:.1f} ms: {event.source} to {event.destination}: {event.words}{lost}"


def _lifelines(
    exchange: Exchange, places: dict[str, float], top: int, rows: list[int], height: int
) -> list[str]:
    parts = []
    for party, x in places.items():
        ends = [
            y
            for event, y in zip(exchange.events, rows, strict=True)
            if isinstance(event, Moment) and event.ends and event.where == party
        ]
        bottom = ends[0] if ends else height - 16
        parts += [
            f'<line class="line" x1="{x:.0f}" y1="{top}" x2="{x:.0f}" y2="{bottom}" stroke-dasharray="3 4"/>',
            f'<rect class="party" x="{x - 55:.0f}" y="{top - 24}" width="110" height="30" rx="6"/>',
            _text(x, top - 4, party, "ink", size=13, anchor="middle", weight="bold"),
        ]
    return parts


def _arrow(message: Message, places: dict[str, float], y: int) -> list[str]:
    begin, end = places[message.source], places[message.destination]
    middle = (begin + end) / 2
    words = _text(middle, y - 6, message.words, "ink", size=12, anchor="middle", ground=True)
    if not message.lost:
        tip = end - 2 if end > begin else end + 2
        way = f'class="arrow" d="M{begin:.0f} {y}H{tip:.0f}"'
        return [f'<path {way} stroke-width="1.6" marker-end="url(#tip)"/>', words]
    stop = end - 14 if end > begin else end + 14
    return [
        f'<path class="lost" d="M{begin:.0f} {y}H{stop:.0f}m-5-5 10 10m0-10-10 10" stroke-width="1.6"/>',
        words,
    ]


def _moment(moment: Moment, places: dict[str, float], y: int) -> list[str]:
    x = places[moment.where]
    if moment.ends:
        return [
            f'<path class="lost" d="M{x - 8:.0f} {y - 8}l16 16m0-16-16 16" stroke-width="3"/>',
            _text(x + 16, y + 5, moment.words, "ended", size=13, weight="bold", ground=True),
        ]
    width = 6.6 * len(moment.words) + 18
    left = min(max(x - width / 2, _LEFT - 40), _WIDTH - 8 - width)
    return [
        f'<rect class="moment" x="{left:.0f}" y="{y - 13}" width="{width:.0f}" height="24" rx="5"/>',
        _text(left + width / 2, y + 4, moment.words, "ink", size=12, anchor="middle"),
    ]


def _text(
    x: float,
    y: float,
    words: str,
    kind: str,
    *,
    size: int,
    anchor: str = "start",
    weight: str = "normal",
    ground: bool = False,
) -> str:
    """Return words. With `ground` nothing shines through them."""
    text = (
        f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )
    if not ground:
        return text
    width = 6.7 * len(words) * size / 12
    left = x - width / 2 if anchor == "middle" else x - 3
    box = f'<rect class="ground" x="{left:.0f}" y="{y - size:.0f}" width="{width:.0f}" height="{size + 2}"/>'
    return box + text
