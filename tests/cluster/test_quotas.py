"""Quotas as they are given, and which part of one a shard has."""

import random

import pytest

from greenroom.errors import UsageError
from greenroom_cluster.config import ActorOptions, NodeOptions, NodeSettings
from greenroom_cluster.quotas import Quota, parse_quotas


def test_quotas_are_read_as_they_are_given() -> None:
    assert parse_quotas("") == ()
    assert parse_quotas(" shop=100000:1GiB, *=10:64mib,default=1:1 ") == (
        Quota("shop", 100_000, 1 << 30),
        Quota("*", 10, 64 << 20),
        Quota("default", 1, 1),
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("shop", "takes NAMESPACE=SESSIONS:BYTES"),
        ("shop=1", "this is none: 'shop=1'"),
        ("shop=1:1KiB,", "this is none: ''"),
        ("shop=x:1KiB", "takes NAMESPACE=SESSIONS:BYTES"),
        ("sh op=1:1", "takes NAMESPACE=SESSIONS:BYTES"),
        ("shop=1:1KB", "--quotas shop=1:BYTES is a whole number with the unit"),
        ("shop=1:1,shop=2:2", "names shop twice"),
        ("shop=0:1", "leaves shop nothing"),
        ("shop=1:0", "leaves shop nothing"),
    ],
)
def test_what_is_no_quota_is_refused_by_the_option(text: str, told: str) -> None:
    options = NodeSettings(name="n1", node=NodeOptions(actor=ActorOptions(quotas=text)))
    with pytest.raises(UsageError, match="--quotas") as refused:
        options.check()
    assert told in str(refused.value)


def test_an_actor_keeps_the_quotas_of_its_node() -> None:
    assert ActorOptions(quotas="shop=5:1MiB").core().quotas == (Quota("shop", 5, 1 << 20),)
    assert ActorOptions().core().quotas == ()


def test_the_only_shard_has_the_whole_quota() -> None:
    quota = Quota("shop", 1000, 1 << 20)
    assert quota.part(1) == quota


@pytest.mark.parametrize("shards", [2, 16, 64, 1024])
@pytest.mark.parametrize("sessions", [100, 10_000, 1_000_000])
def test_parts_add_up_to_little_more_than_the_quota(shards: int, sessions: int) -> None:
    """To what docs/decisions/namespaces.md says."""
    quota = Quota("shop", sessions, sessions * 1000)
    part = quota.part(shards)
    share, share_bytes = sessions / shards, sessions * 1000 / shards
    margin = 4 * share**0.5 + 4
    assert share <= part.sessions <= share + margin + 5
    most = share_bytes * (share + margin + 5) / share + min(share_bytes, 1 << 20)
    assert share_bytes <= part.stored_bytes <= most + 5000


@pytest.mark.parametrize("sessions", [640, 6400, 64_000])
def test_who_spreads_its_sessions_evenly_has_all_of_its_quota(sessions: int) -> None:
    """In 20 clusters, no shard of 64 is full before the quota is."""
    part = Quota("shop", sessions, sessions * 2000).part(64)
    generator = random.Random(sessions)
    for _ in range(20):
        count, size = [0] * 64, [0] * 64
        for _ in range(sessions):
            shard = generator.randrange(64)
            count[shard] += 1
            size[shard] += min(int(generator.expovariate(1 / 2000)), 1 << 20)
        assert max(count) <= part.sessions
        assert max(size) <= part.stored_bytes
