"""What the client does when an actor redirects an operation, or is too busy for it.

A `Redirect` says that the actor is not the serving primary of that shard, and by which version of the map.
What comes next depends on the map that the client holds:

- It names another primary: the operation goes there at once.
- It names the same one, or none: the operation is held back, for longer with every refusal, and then tried
  again. If the redirect named a later version, the nodes are asked for the newest map meanwhile; as soon as
  that version is held, the operation goes on.

An `Overloaded` holds the operation back, whatever the map says. An operation on all shards is held back in
both cases and then asks the primaries of its remaining shards.

A refused attempt has not been applied and does not count, unless its redirect says that the request stands in
a log: then it may yet take effect. A repeat under the same request id is harmless either way.
"""

from typing import TypeAlias

from greenroom import wire
from greenroom.dialog.links import Lane, Link
from greenroom.dialog.operations import AnyOperation, Operation
from greenroom.routing import Router

Refusal: TypeAlias = wire.Redirect | wire.Overloaded


def note(operation: AnyOperation, link: Link, refusal: Refusal) -> None:
    """Note why the operation was refused, and whether the refused attempt may yet take effect."""
    if isinstance(refusal, wire.Redirect):
        operation.maybe = operation.maybe or (refusal.appended and operation.kind.mutation)
        operation.reason = f"the actor at {link.address} does not serve that shard (yet)"
    else:
        operation.reason = f"overloaded: {refusal.reason}"
    if not operation.uncertain:
        operation.first_ns = 0


def take_back(operation: Operation, link: Link, refusal: Refusal) -> None:
    """Take the operation off the connection on which it was refused."""
    link.bytes -= operation.size
    operation.link = None
    note(operation, link, refusal)
    operation.refused_by = None if link.lane is None else link.lane.root
    operation.wait_version = refusal.map_version if isinstance(refusal, wire.Redirect) else 0


def has_another_primary(operation: Operation, refusal: Refusal, lane: Lane | None) -> bool:
    """Whether to go on at once: the actor redirected, and by the map held `lane` leads to another one."""
    return isinstance(refusal, wire.Redirect) and lane is not operation.refused_by


def is_settled(operation: Operation, lane: Lane | None, map_version: int) -> bool:
    """Whether a map ends the wait: it names another primary, or is as new as the redirect asked for."""
    return operation.refused_by is not lane or map_version >= operation.wait_version > 0


def wants_newer_map(operation: AnyOperation, router: Router | None) -> bool:
    """Whether the operation was redirected by a later map than the one held."""
    wanted = operation.wait_version if isinstance(operation, Operation) else 0
    return router is not None and wanted > router.map.version
