"""What contenders are called in plots, and how their lines look. Pure.

Each has a colour of its own that stands out on a white and on a dark ground, and a marker besides, for who
does not tell the colours apart. What is ours is thicker.
"""

import re

import msgspec

INK, GRID, GROUND = "#1f2a33", "#c5ccd2", "#ffffff"
DARK = {INK: "#e7ecef", GRID: "#3a434b", GROUND: "#15191d"}
"""What these are where the reader's system is dark."""

_SVG_TAG = re.compile(r"(<svg\b[^>]*>)")


class Look(msgspec.Struct, frozen=True):
    """The name, the colour and the marker of a contender."""

    name: str
    colour: str
    marker: str = "o"
    ours: bool = False


LOOKS = {
    "greenroom": Look("Greenroom", "#14905a", "o", ours=True),
    "greenroom_uvloop": Look("Greenroom, uvloop", "#5f9a1f", "^", ours=True),
    "greenroom_trio": Look("Greenroom, trio", "#0f8f9c", "v", ours=True),
    "echo": Look("echo: the limit", "#78838f", "x"),
    "memory": Look("MemoryStore", "#9a7d5a", "+"),
    "redis_py": Look("redis-py, not replicated", "#d9483b", "s"),
    "redis_wait": Look("redis-py, WAIT 1", "#b83a74", "D"),
    "coredis": Look("coredis, not replicated", "#d07a10", "<"),
    "valkey_glide": Look("valkey-glide, not replicated", "#8d5fd3", ">"),
    "emcache": Look("emcache, memcached", "#2f7fd6", "p"),
    "starsessions": Look("starsessions", "#d65fa8", "*"),
    "litestar": Look("Litestar", "#a58a00", "h"),
    "redis_sentinel": Look("Redis with Sentinel", "#dc4a3c"),
    "redis_sentinel_strict": Look("Redis with Sentinel, min-replicas-to-write 1", "#cf7a12"),
    "redis_sentinel_wait": Look("Redis with Sentinel, WAIT 1", "#8c5ed2"),
}

SCENARIOS = {
    "actor_killed": "the serving process is killed",
    "node_killed": "the serving host is killed",
    "cut_from_replicas": "the primary is cut off from its replicas",
    "cut_from_majority": "the primary is cut off from all but its callers",
}


def with_dark_colours(svg: str) -> str:
    """Return a picture in these colours that is dark where the reader's system is."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    return _SVG_TAG.sub(rf"\1<style>@media (prefers-color-scheme: dark){{{rules}}}</style>", svg, count=1)
