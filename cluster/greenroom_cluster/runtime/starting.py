"""Starters with everything imported that their processes run: see `runtime.starter`."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from greenroom_cluster.runtime import child
from greenroom_cluster.runtime.starter import CHILD, MEMBER, open_starter

NODE = "greenroom_cluster.runtime.node_process"
COORDINATION = "greenroom_cluster.runtime.coordination_process"
"""Supervisors. Each brings what it runs in its children."""

_CHILD = ("argparse", "tractor._entry")
"""What the entry of tractor brings beside that; after them, which keep its warnings quiet."""


@contextmanager
def open_starter_of_children(name: str, *supervisors: str) -> Iterator[None]:
    """Fork a starter for the children of the supervisor that this process is to be: one of these modules."""
    _load((*supervisors, *_CHILD))
    with open_starter(name, {CHILD: child.run_forked}):
        yield


@contextmanager
def open_starter_of_members(name: str) -> Iterator[None]:
    """Fork a starter for the members of a local cluster."""
    _load((NODE, COORDINATION, *_CHILD))
    member = importlib.import_module("greenroom_cluster.runtime.member")
    with open_starter(name, {MEMBER: member.run_forked}):
        yield


def _load(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
