"""How `greenroom end-sessions` decides in which namespace: from what the primaries tell, or do not tell."""

import msgspec
import pytest

from greenroom import wire
from greenroom.cluster_map import ShardEntry
from greenroom.errors import UnavailableError, UsageError
from greenroom.namespace_use import NamespaceUse
from greenroom_cluster.cli.users import check_clear
from greenroom_cluster.user_sessions import OtherNamespaces, others_among
from tests.cluster.supervision.test_inspection import A, B, cluster_map, replica


def told(*namespaces: tuple[str, int]) -> wire.Inspection:
    uses = tuple(NamespaceUse(name, sessions, 100 * sessions) for name, sessions in namespaces)
    return wire.Inspection(1, A, (replica("primary"),), namespaces=uses)


def test_others_are_those_with_sessions() -> None:
    found = others_among(cluster_map(B), {A: told(("web", 2), ("default", 3), ("empty", 0))})
    assert found == OtherNamespaces(("web",))
    check_clear(others_among(cluster_map(B), {A: told(("default", 3))}))


def test_a_primary_that_does_not_answer_is_told_by_its_slot() -> None:
    assert others_among(cluster_map(B), {B: told()}) == OtherNamespaces(silent=("n1/0",))


def test_a_shard_without_a_primary_tells_nothing() -> None:
    known = cluster_map(B)
    lost = msgspec.structs.replace(known, shards=(ShardEntry(0, b"", (), b"", ()), *known.shards[1:]))
    assert others_among(lost, {A: told()}).silent == ("none",)


@pytest.mark.parametrize(
    ("others", "error", "text"),
    [
        (OtherNamespaces(("web", "shop"), ("n1/0",)), UsageError, "sessions in web, shop too"),
        (OtherNamespaces((), ("n1/0",)), UnavailableError, r"do not answer \(n1/0\)"),
    ],
)
def test_what_is_not_clear_is_refused(others: OtherNamespaces, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as refused:
        check_clear(others)
    assert "nothing was ended" in str(refused.value)
    assert "--namespace" in str(refused.value)
