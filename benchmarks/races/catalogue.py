"""Who takes part in the races, and whose cost is measured."""

from functools import partial

from benchmarks.races.django_shop import open_django
from benchmarks.races.greenroom_shops import open_cluster, open_memory
from benchmarks.races.litestar_shop import open_litestar
from benchmarks.races.overhead import BASE
from benchmarks.races.shops import Contender
from benchmarks.races.starlette_shops import open_cookies, open_forgetful
from benchmarks.races.starsessions_shop import open_starsessions

_MEMORY = Contender("Greenroom, MemoryStore", open_memory, ("greenroom", "starlette"))
_CLUSTER = Contender("Greenroom, cluster", open_cluster, ("greenroom", "starlette"), "cluster")
_COOKIES = Contender("Starlette's cookies", open_cookies, ("starlette", "itsdangerous"))
_STARSESSIONS = Contender("starsessions, Redis", open_starsessions, ("starsessions", "redis"), "redis")

CONTENDERS = {
    "greenroom": _MEMORY,
    "cluster": _CLUSTER,
    "starlette": _COOKIES,
    "starsessions": _STARSESSIONS,
    "litestar": Contender("Litestar, Redis", open_litestar, ("litestar", "redis"), "redis"),
    "django": Contender("Django, Redis cache", open_django, ("django", "redis"), "redis"),
}
WITHOUT_STORE = "starlette"
NEAR_SESSIONS = 10_000
_NEAR = Contender("Greenroom, near cache", partial(open_cluster, near_sessions=NEAR_SESSIONS), (), "cluster")
MEASURED = (
    Contender(BASE, open_forgetful, ()),
    _COOKIES,
    _STARSESSIONS,
    _MEMORY._replace(open=partial(open_memory, counted=False)),
    _CLUSTER._replace(open=partial(open_cluster, counted=False)),
    _NEAR._replace(open=partial(open_cluster, counted=False, near_sessions=NEAR_SESSIONS)),
)
