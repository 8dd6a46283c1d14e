"""The terms of one coordinator: with what they begin, and what is kept in which order."""

import json
from typing import Any

import msgspec
import pytest

from greenroom.cluster_map import ClusterMap
from greenroom.errors import UsageError
from greenroom_cluster.coordination.etcd import candidacy as ca
from greenroom_cluster.coordination.etcd import leadership as ls
from greenroom_cluster.coordination.etcd.candidacy import Candidacy, CandidacyEffect
from greenroom_cluster.coordination.etcd.gateway import Transacted, decoded, transaction_body
from greenroom_cluster.coordination.etcd.leadership import Leadership
from greenroom_cluster.coordination.genesis import ClusterOptions
from tests.cluster.etcd.fake import Store

SECOND = 1_000_000_000


class Coordinator:
    """A candidacy whose requests are answered at once; unless `answering`, those that write maps wait."""

    def __init__(self, store: Store, shards: int = 4) -> None:
        self.store = store
        self.now_ns = 0
        self.answering = True
        self.held: list[ls.Transact] = []
        self.told: list[CandidacyEffect] = []
        leadership = Leadership("/greenroom/test", "c1", 0)
        self.candidacy = Candidacy(leadership, ClusterOptions("test", shards, 2), bytes(16))

    def step(self, happened: ls.LeadershipInput | None = None) -> None:
        self.perform(self.candidacy.step(self.now_ns, happened))

    def keep(self, term: int, number: int, what: ClusterMap | dict[bytes, int]) -> None:
        self.perform(self.candidacy.keep(self.now_ns, term, number, what))

    def perform(self, effects: list[CandidacyEffect]) -> None:
        for effect in effects:
            match effect:
                case ls.Grant(number=number, ttl_seconds=ttl):
                    given: Any = self.store.grant({"TTL": ttl})
                    self.step(ls.Leased(number, int(given["ID"]), int(given["TTL"])))
                case ls.Renew(number=number, lease=lease):
                    kept = self.store.keep_alive({"ID": lease})["result"]
                    self.step(ls.Leased(number, lease, int(kept.get("TTL", 0))))
                case ls.Revoke(lease=lease):
                    self.store.revoke({"ID": lease})
                case ls.Transact() if self.answering or not _writes_map(effect):
                    self.answer(effect)
                case ls.Transact():
                    self.held.append(effect)
                case _:
                    self.told.append(effect)

    def answer(self, asked: ls.Transact) -> None:
        body = json.loads(transaction_body(asked.compares, asked.success, asked.failure))
        reply = json.dumps(self.store.txn(body)).encode()
        self.step(ls.Answered(asked.number, decoded(reply, Transacted)))

    def lose_lease(self) -> None:
        """Have the lease end, and be told of it with the next renewal."""
        for lease in list(self.store.leases):
            self.store.revoke({"ID": lease})
        self.now_ns += SECOND
        self.step()

    def begun(self) -> list[ca.Begin]:
        return [each for each in self.told if isinstance(each, ca.Begin)]

    def kept(self) -> list[int]:
        return [each.number for each in self.told if isinstance(each, ca.Kept)]


def _writes_map(asked: ls.Transact) -> bool:
    return any(b"/map/" in each.key for each in asked.compares)


def test_a_term_begins_once_the_map_of_a_new_cluster_is_kept() -> None:
    coordinator = Coordinator(Store())
    coordinator.answering = False
    coordinator.step()
    assert coordinator.told == []
    coordinator.answer(coordinator.held.pop())
    (begin,) = coordinator.begun()
    assert (begin.term, begin.map.version, begin.marks) == (1, 1, {})
    assert coordinator.candidacy.serves(1)


def test_who_resigns_before_its_first_map_is_kept_has_not_begun() -> None:
    coordinator = Coordinator(Store())
    coordinator.answering = False
    coordinator.step()
    coordinator.lose_lease()
    assert [type(each) for each in coordinator.told] == [ca.Cease]
    coordinator.answering = True
    coordinator.now_ns += SECOND
    coordinator.step()
    assert [begin.term for begin in coordinator.begun()] == [1]


def test_what_is_to_be_kept_waits_for_what_is_being_kept() -> None:
    coordinator = Coordinator(Store())
    coordinator.step()
    (begin,) = coordinator.begun()
    coordinator.answering = False
    coordinator.keep(1, 1, msgspec.structs.replace(begin.map, version=2))
    coordinator.keep(1, 2, {b"d": 7})
    coordinator.keep(1, 3, msgspec.structs.replace(begin.map, version=3))
    assert coordinator.kept() == []
    coordinator.answer(coordinator.held.pop())
    assert coordinator.kept() == [1, 2]
    coordinator.answer(coordinator.held.pop())
    assert coordinator.kept() == [1, 2, 3]


def test_what_a_former_term_wants_is_not_kept() -> None:
    coordinator = Coordinator(Store())
    coordinator.step()
    (begin,) = coordinator.begun()
    coordinator.lose_lease()
    coordinator.now_ns += SECOND
    coordinator.step()
    assert [begin.term for begin in coordinator.begun()] == [1, 2]
    before = dict(coordinator.store.keys)
    coordinator.keep(1, 1, msgspec.structs.replace(begin.map, version=9))
    assert coordinator.store.keys == before
    assert coordinator.kept() == []


def test_options_that_differ_from_the_cluster_in_etcd_are_refused() -> None:
    store = Store()
    Coordinator(store).step()
    for lease in list(store.leases):
        store.revoke({"ID": lease})
    with pytest.raises(UsageError, match="--shards"):
        Coordinator(store, shards=8).step()
