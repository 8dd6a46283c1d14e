"""Requests of clients at one actor: which replica gets each, in what order, and who is charged.

`fairness` explains why some wait.
"""

from collections.abc import Sequence
from typing import get_args

import msgspec

from greenroom import wire
from greenroom.ending_messages import Unwatch, WatchBeacon, WatchSession
from greenroom.ids import POINT_BITS
from greenroom.near_messages import GetNear, NearAck, NearBeacon, NearRequest, Unhold
from greenroom_cluster.shard.clients.administration import administer
from greenroom_cluster.shard.clients.copies import FROZEN, ShardCopies
from greenroom_cluster.shard.clients.costly import BRINGING, FANOUTS, hold_costly, put_off
from greenroom_cluster.shard.clients.operations import CopyShard, Freeze, Operation, Request
from greenroom_cluster.shard.effects import ReplyToClient
from greenroom_cluster.shard.fanout import Gather
from greenroom_cluster.shard.inputs import ClientRequests, ConnectionClosed
from greenroom_cluster.shard.limits.fairness import (
    NS_PER_BYTE_MAX,
    NS_PER_ENTRY_MAX,
    NS_PER_ITEM_MAX,
    NS_PER_REQUEST_MAX,
    NS_PER_SHARD_MAX,
    WALKED_ITEMS_MAX,
    FairShare,
)
from greenroom_cluster.shard.roles.accepts import ACCEPTS, READS, WRITES
from greenroom_cluster.shard.roles.near_reads import read_near
from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.replicas import Replicas
from greenroom_cluster.shard.roles.role import InputKind
from greenroom_cluster.shard.state.namespaces import client_in, enclosed
from greenroom_cluster.shard.state.records import Within

_NEAR = frozenset({*get_args(NearRequest), Unwatch, WatchBeacon})
_READS = frozenset({wire.Get, WatchSession})
_SPECIAL = FANOUTS | _NEAR | {Within, wire.DeleteByHandle, wire.Inspect, wire.DropRecord, CopyShard, Freeze}
"""Requests that are no plain reads and writes of the session with their digest."""
_NO_SERVICE = wire.Inspect | Operation | NearBeacon | NearAck | Unhold | Unwatch | WatchBeacon
"""What is not refused while no client is served: what operators ask, and what ends the use of leases."""


class Requests:
    """Hands requests to replicas, once `serve` has been called. `fair` decides whose requests wait."""

    def __init__(self, replicas: Replicas) -> None:
        resources = replicas.resources
        self._replicas = replicas
        self._resources = resources
        self._context = resources.context
        self._step = resources.step
        self.fair = FairShare()
        self.copies = ShardCopies(replicas)
        self._shift = POINT_BITS
        # How many requests the latest step took in.
        self._taken = 0

    def serve(self, shard_count: int) -> None:
        """Hand requests to so many shards from now on."""
        self._shift = POINT_BITS - (shard_count.bit_length() - 1)

    def go_on(self, now_ns: int, wall_us: int) -> None:
        """Serve the next waiting request, if one may go on."""
        waiting = self.fair.take(now_ns)
        if waiting is not None:
            self._step.late = True
            self._serve(
                now_ns, wall_us, waiting.connection, waiting.client, waiting.identity, [waiting.request]
            )
            self._step.late = False

    def spent(self, now_ns: int, spent_ns: int) -> Sequence[str]:
        """Take in how long the latest step took; return who is charged for it.

        A step applies what earlier steps took in; identities with a large part in that are charged.
        """
        step = self._step
        applied, identity = step.applied_bytes, step.identity
        # Nobody is charged for what else kept the process busy or off its processor.
        if identity:
            bound_ns = NS_PER_REQUEST_MAX * self._taken + NS_PER_SHARD_MAX * step.fanned_out
            bound_ns += NS_PER_ENTRY_MAX * step.listed + NS_PER_BYTE_MAX * sum(applied.values())
            bound_ns += NS_PER_ITEM_MAX * step.walked_items
            self.fair.charge(now_ns, identity, min(spent_ns, bound_ns))
            return (identity,)
        total = sum(applied.values())
        for each, size in applied.items():
            self.fair.charge(now_ns, each, min(spent_ns * size // total, size * NS_PER_BYTE_MAX))
        return tuple(applied)

    def take_in(self, now_ns: int, wall_us: int, event: ClientRequests) -> None:
        """Serve the requests of a client's connection, except those that its identity must wait for."""
        fair, identity, client, requests = self.fair, event.identity, event.client, event.requests
        if event.namespace:
            requests = [enclosed(request, event.namespace) for request in requests]
            client = client_in(event.namespace, client)
        if identity != fair.latest:
            fair.came(now_ns, identity)
        if fair.debts and identity in fair.debts and fair.must_wait(now_ns, identity):
            by_shard = self._replicas.by_shard
            requests = hold_costly(
                self._context, fair, by_shard, event.connection, client, identity, requests
            )
        self._serve(now_ns, wall_us, event.connection, client, identity, requests)

    def _serve(
        self,
        now_ns: int,
        wall_us: int,
        connection: int,
        client: bytes,
        identity: str,
        requests: Sequence[Request],
    ) -> None:
        context, step = self._context, self._step
        step.identity = identity
        self._taken = len(requests)
        if self.copies.frozen:
            requests = self._refuse_clients(connection, requests)
        replicas, shift, reads = self._replicas.by_shard, self._shift, _READS
        for request in requests:
            kind = type(request)
            if kind in _SPECIAL:
                if kind in FANOUTS:
                    self._fan_out(now_ns, wall_us, connection, client, request)  # type: ignore[arg-type]  # kind says which
                elif kind is wire.DeleteByHandle:
                    self._delete_by_handle(now_ns, wall_us, connection, client, request)  # type: ignore[arg-type]  # as above
                elif kind in _NEAR:
                    self._serve_near(now_ns, wall_us, connection, client, request)  # type: ignore[arg-type]  # kind says which
                elif kind is Within:
                    self._serve_within(now_ns, wall_us, connection, client, identity, request)  # type: ignore[arg-type]  # as above
                elif kind is CopyShard:
                    self.copies.read(now_ns, connection, request)  # type: ignore[arg-type]  # kind says which
                elif kind is Freeze:
                    self.copies.freeze(request.request_id, connection)  # type: ignore[union-attr]  # as above
                else:
                    administer(self._resources, self._replicas, now_ns, wall_us, connection, request)  # type: ignore[arg-type]  # as above
                continue
            point: int = request.point  # type: ignore[union-attr]  # what remains has a point
            replica = replicas[point >> shift] if replicas and not point >> POINT_BITS else None
            serve = None if replica is None else (READS if kind in reads else WRITES)[replica.role]
            if serve is None or replica is None:
                redirect = context.redirect(request.request_id)  # type: ignore[union-attr]  # it has an id, too
                context.effects.append(ReplyToClient(connection, redirect))
            elif step.walked_items > WALKED_ITEMS_MAX and kind in BRINGING:
                put_off(context, self.fair, now_ns, connection, client, identity, request)  # type: ignore[arg-type]  # kind says which
            else:
                serve(replica.primary or replica, now_ns, wall_us, connection, client, request)

    def _serve_near(
        self,
        now_ns: int,
        wall_us: int,
        connection: int,
        client: bytes,
        request: NearRequest | Unwatch | WatchBeacon,
    ) -> None:
        leases, watchers = self._resources.near, self._resources.watchers
        match request:
            case NearBeacon(sent_ns=sent_ns, hits=hits):
                leases.beacon(now_ns, connection, sent_ns, hits)
            case NearAck(number=number):
                leases.acknowledge(now_ns, wall_us, connection, number)
            case Unhold(digests=digests):
                leases.withdraw(connection, digests)
            case Unwatch(digests=digests):
                watchers.withdraw(connection, digests)
            case WatchBeacon(number=number):
                watchers.beacon(now_ns, connection, number)
            case GetNear(point=point):
                self._read_near(now_ns, wall_us, connection, client, request, self._replica_at(point))

    def _read_near(
        self,
        now_ns: int,
        wall_us: int,
        connection: int,
        client: bytes,
        request: GetNear,
        replica: Replica | None,
    ) -> None:
        serve = None if replica is None else READS[replica.role]
        if replica is not None and replica.primary is not None:
            read_near(self._resources, replica.primary, now_ns, wall_us, connection, client, request)
        elif serve is not None:
            serve(replica, now_ns, wall_us, connection, client, request)
        else:
            redirect = self._context.redirect(request.request_id)
            self._context.effects.append(ReplyToClient(connection, redirect))

    def _replica_at(self, point: int) -> Replica | None:
        """Return the replica of the shard of a point; None if it is not here, or there is no such point."""
        replicas = self._replicas.by_shard
        return replicas[point >> self._shift] if replicas and not point >> POINT_BITS else None

    def _serve_within(
        self,
        now_ns: int,
        wall_us: int,
        connection: int,
        client: bytes,
        identity: str,
        request: Within,
    ) -> None:
        kind = type(request.command)
        if kind in FANOUTS:
            self._fan_out(now_ns, wall_us, connection, client, request)
        elif self._step.walked_items > WALKED_ITEMS_MAX and kind in BRINGING:
            put_off(self._context, self.fair, now_ns, connection, client, identity, request)
        else:
            self._delete_by_handle(now_ns, wall_us, connection, client, request)

    def _delete_by_handle(
        self,
        now_ns: int,
        wall_us: int,
        connection: int,
        client: bytes,
        request: wire.DeleteByHandle | Within,
    ) -> None:
        point: int = (request.command if isinstance(request, Within) else request).point  # type: ignore[union-attr]  # of one session
        replica = self._replica_at(point)
        serve = None if replica is None else WRITES[replica.role]
        if serve is None or replica is None:
            self._context.effects.append(
                ReplyToClient(connection, self._context.redirect(request.request_id))
            )
        elif replica.primary is None:
            serve(replica, now_ns, wall_us, connection, client, request)
        elif isinstance(request, Within):
            replica.primary.submit_within(now_ns, wall_us, connection, client, request)
        else:
            replica.primary.submit_by_handle(now_ns, wall_us, connection, client, request)

    def _refuse_clients(self, connection: int, requests: Sequence[Request]) -> list[Request]:
        """Refuse what is not an operator's, and return what is."""
        for request in requests:
            if not isinstance(request, _NO_SERVICE):
                reply = wire.Overloaded(request.request_id, FROZEN)
                self._context.effects.append(ReplyToClient(connection, reply))
        return [request for request in requests if isinstance(request, _NO_SERVICE)]

    def _fan_out(
        self, now_ns: int, wall_us: int, connection: int, client: bytes, asked: wire.Fanout | Within
    ) -> None:
        context, step = self._context, self._step
        request: wire.Fanout = asked.command if isinstance(asked, Within) else asked  # type: ignore[assignment]  # to many shards
        shards = sorted(set(request.shards))
        step.fanned_out += len(shards)
        if step.fanned_out > context.settings.fanned_out_max:
            reason = "too many shards are asked for at once"
            context.effects.append(ReplyToClient(connection, wire.Overloaded(request.request_id, reason)))
            return
        # Logged and held requests name no shards: else each shard would keep the whole list.
        request = msgspec.structs.replace(request, shards=())
        if not isinstance(request, wire.ListByUser) and request.removed is not None:
            # Only primaries set it, in their logs.
            request = msgspec.structs.replace(request, removed=None)
        gather = Gather(connection, request)
        logged = Within(asked.namespace, request) if isinstance(asked, Within) else request  # type: ignore[arg-type]  # no list
        for shard in shards:
            serve = ACCEPTS[self._replicas.role_of(shard)].get(InputKind.FANOUT)
            replica = self._replicas.get(shard)
            if serve is not None and replica is not None:
                gather.expect()
                serve(replica.primary, now_ns, wall_us, gather, client, logged)
        gather.seal(context.effects)

    def connection_closed(self, now_ns: int, _wall_us: int, event: ConnectionClosed) -> None:
        """Forget waiting requests of a connection that is gone."""
        self.fair.drop(event.connection)
        self.copies.close(event.connection)
        self._resources.near.connection_closed(now_ns, event.connection)
        self._resources.watchers.connection_closed(event.connection)
        for replica in self._replicas.by_shard:
            if replica is not None and replica.primary is not None:
                replica.primary.held.drop_connection(event.connection)
