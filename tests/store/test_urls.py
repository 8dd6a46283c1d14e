"""URLs name stores, and bad ones are answered with what to write."""

from pathlib import Path

import pytest

from greenroom import ClusterStore, MemoryStore, SqliteStore, UsageError, store_from_url


def test_memory() -> None:
    first, second = store_from_url("memory://"), store_from_url("memory://")
    assert isinstance(first, MemoryStore)
    assert first is not second


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("greenroom://127.0.0.1:7400", "'greenroom' at 127.0.0.1:7400>"),
        ("greenroom://a.example:1,b-2:65535/", "'greenroom' at a.example:1,b-2:65535>"),
        ("greenroom://[::1]:7400,127.0.0.2:7401/shop", "'shop' at [::1]:7400,127.0.0.2:7401>"),
        ("greenroom://a:1/my%2Dshop?deadline_seconds=2.5", "'my-shop' at a:1>"),
        ("greenroom://a:1?deadline_seconds=2", "'greenroom' at a:1>"),
    ],
)
def test_cluster(url: str, shown: str) -> None:
    store = store_from_url(url)
    assert isinstance(store, ClusterStore)
    assert repr(store).endswith(shown)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///sessions.db", "HERE/sessions.db"),
        ("sqlite:///./data/my%20sessions.db?deadline_seconds=2", "HERE/data/my sessions.db"),
        ("sqlite:////var/lib/shop/sessions.db?synchronous=normal", "/var/lib/shop/sessions.db"),
    ],
)
def test_file(url: str, path: str) -> None:
    store = store_from_url(url)
    assert isinstance(store, SqliteStore)
    assert store._settings.path == path.replace("HERE", str(Path.cwd()))


def test_options_reach_the_store_of_a_file() -> None:
    store = store_from_url("sqlite:///a.db?deadline_seconds=2.5&synchronous=normal")
    assert isinstance(store, SqliteStore)
    assert (store._settings.deadline_seconds, store._settings.synchronous) == (2.5, "normal")


def test_deadline_reaches_the_store() -> None:
    short = store_from_url("greenroom://a:1?deadline_seconds=2.5")
    default = store_from_url("greenroom://a:1")
    assert isinstance(short, ClusterStore)
    assert isinstance(default, ClusterStore)
    assert short._settings.deadline_seconds == 2.5
    assert default._settings.deadline_seconds == 5.0


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "memory://"),
        (None, "memory://"),
        ("memory:", "memory://"),
        ("memory://host", "memory://"),
        ("redis://localhost:6379", "greenroom://host:port"),
        ("sqlite://", "sqlite:///sessions.db"),
        ("sqlite:///", "sqlite:///sessions.db"),
        ("sqlite:sessions.db", "sqlite:///sessions.db"),
        ("sqlite://sessions.db", "sqlite:///sessions.db"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///folder/", "sqlite:///sessions.db"),
        ("sqlite:///a.db?synchronous=off", '"full" or "normal"'),
        ("sqlite:///a.db?journal=wal", "it has deadline_seconds and synchronous"),
        ("sqlite:///a.db?cluster=shop", "a sqlite:// URL has no option 'cluster'"),
        ("sqlite:///a.db?deadline_seconds=0", "deadline_seconds=5"),
        ("greenroom://a:1?deadline_seconds=soon", "; not a text; in a store URL"),
        ("greenroom:a:1", "greenroom://host:port"),
        ("Greenroom://a:1", "greenroom://host:port"),
        ("greenroom://", "host:port"),
        ("greenroom:///shop", "host:port"),
        ("greenroom://a", "host:port"),
        ("greenroom://a:0", "host:port"),
        ("greenroom://a:65536", "host:port"),
        ("greenroom://a:x", "host:port"),
        ("greenroom://::1:7400", "[host]:port"),
        ("greenroom://a:1/shop/second", "slash"),
        ("greenroom://a:1/shop#part", "greenroom://host:port"),
        ("greenroom://a:1/the%20shop", "cluster is the name that the cluster's nodes were started with"),
        (f"greenroom://a:1/{'x' * 64}", "cluster is the name"),
        ("greenroom://a:1?deadline=5", "watches_max, secret_file, loopback_proof and insecure_"),
        ("greenrooms://a:1", "tls_cert, tls_key and tls_ca are missing: write greenrooms://"),
        ("greenrooms://a:1?tls_cert=a&tls_key=b", "and tls_ca is missing: write greenrooms://"),
        ("greenroom://a:1?zone=b/c", "zone is the zone in which this app runs"),
        ("greenroom://a:1?near_eager=true", "near_eager keeps nothing without near_sessions"),
        ("greenroom://a:1?synchronous=full", "a greenroom:// URL has no option 'synchronous'"),
        ("greenroom://a:1?cluster=shop", "greenroom://host:port/NAME"),
        ("greenroom://a:1?operations_max=9", "pass operations_max=... to ClusterStore"),
        ("sqlite:///a.db?operations_max=9", "pass operations_max=... to SqliteStore"),
        ("greenroom://a:1?deadline_seconds=soon", "deadline_seconds=5"),
        ("greenroom://a:1?deadline_seconds=0", "deadline_seconds=5"),
        ("greenroom://a:1?deadline_seconds=-1", "deadline_seconds=5"),
        ("greenroom://a:1?deadline_seconds=nan", "deadline_seconds=5"),
        ("greenroom://a:1?deadline_seconds=inf", "deadline_seconds=5"),
        ("greenroom://a:1?deadline_seconds=", "deadline_seconds=5"),
        ("greenroom://a:1?deadline_seconds=5&deadline_seconds=6", "twice"),
        pytest.param(f"greenroom://a:1?near_sessions={'9' * 4301}", "near_sessions is how", id="digits"),
        pytest.param(f"greenroom://a:1?watches_max={'9' * 4301}", "watches_max is how", id="more digits"),
        ("greenroom://a:1?near_sessions=10000001", "at most 10000000; not 10000001"),
        ("greenroom://a:1?near_sessions=-1", "near_sessions is how many"),
        ("greenroom://a:1?near_sessions=\u0663", "near_sessions is how many"),
    ],
)
def test_bad_url_is_answered_with_what_to_write(url: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        store_from_url(url)
    assert hint in str(caught.value)


def test_password_in_a_url_is_refused_unseen() -> None:
    with pytest.raises(UsageError) as caught:
        store_from_url("greenroom://user:hunter2@host:7400/shop")
    assert "hunter2" not in str(caught.value)
