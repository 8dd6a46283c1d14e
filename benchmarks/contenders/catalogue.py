"""Every contender by name: its client, its event loop, the servers it needs.

Imports no client library: those that are not installed are found out by the process that would use them.
"""

import importlib
from typing import Literal, TypeAlias

import msgspec

from benchmarks.contenders.base import Client
from benchmarks.orders import LoopName

ServerName: TypeAlias = Literal["none", "echo", "cluster", "redis", "redis_replicated", "memcached"]


class Contender(msgspec.Struct, frozen=True):
    """One of those compared. `client` is `module:class` within this package."""

    client: str
    server: ServerName
    loop: LoopName = "asyncio"
    about: str = ""


CONTENDERS = {
    "echo": Contender("echo:EchoClient", "echo", about="bare frames over the same loops: the limit"),
    "greenroom": Contender("greenroom:ClusterClient", "cluster", about="ClusterStore, 2 nodes, replicated"),
    "greenroom_uvloop": Contender("greenroom:ClusterClient", "cluster", "uvloop", "ClusterStore on uvloop"),
    "greenroom_trio": Contender("greenroom:ClusterClient", "cluster", "trio", "ClusterStore under trio"),
    "memory": Contender("greenroom:MemoryClient", "none", about="MemoryStore: no network, no replica"),
    "redis_py": Contender("redis_py:RedisClient", "redis", about="redis-py, hiredis, pooled; unreplicated"),
    "redis_wait": Contender(
        "redis_py:RedisWaitClient", "redis_replicated", about="redis-py, SET + WAIT 1: replicated"
    ),
    "coredis": Contender("coredis:CoredisClient", "redis", about="coredis, pooled; unreplicated"),
    "valkey_glide": Contender("valkey_glide:GlideContender", "redis", about="valkey-glide; unreplicated"),
    "emcache": Contender("emcache:EmcacheClient", "memcached", about="emcache, memcached; unreplicated"),
    "starsessions": Contender("starsessions:StarsessionsClient", "redis", about="starsessions' RedisStore"),
    "litestar": Contender("litestar:LitestarClient", "redis", about="Litestar's RedisStore"),
}


def client_class(path: str) -> type[Client]:
    """Return the class of `module:class`. Raises ModuleNotFoundError if what it needs is not installed."""
    module, _, name = path.partition(":")
    found: type[Client] = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)
    return found
