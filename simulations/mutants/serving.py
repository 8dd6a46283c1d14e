"""Replaces how a primary serves requests, also where a table of roles names that."""

from collections.abc import Callable
from typing import Any

from greenroom_cluster.shard.clients import requests
from greenroom_cluster.shard.roles.primary import Primary
from simulations.mutants.patching import Patches


def serve_by(patches: Patches, name: str, serve: Callable[..., Any]) -> None:
    """Have primaries serve by this in the place of their method of that name."""
    original = Primary.__dict__[name]
    patches.set(Primary, name, serve)
    for table in ("READS", "WRITES"):
        known = getattr(requests, table)
        patches.set(
            requests, table, {role: serve if each is original else each for role, each in known.items()}
        )
