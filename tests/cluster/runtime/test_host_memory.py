"""How much memory there is for an actor."""

import mmap
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from greenroom import UsageError
from greenroom_cluster.config import (
    MEMORY_BYTES_MIN,
    ActorOptions,
    NodeOptions,
    NodeSettings,
    memory_bytes,
)
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.runtime.host_memory import (
    Settling,
    available_bytes,
    default_bytes,
    give_back,
    resident_bytes,
    warn_if_short,
)

MIB = 1 << 20


def test_this_process_has_some_memory() -> None:
    before = resident_bytes()
    # Of its own pages: bytes may be given what the allocator has kept resident since an earlier test.
    with mmap.mmap(-1, 40 * MIB) as kept:
        kept.write(b"x" * len(kept))
        assert len(kept) <= resident_bytes() - before + 5 * MIB


def test_what_was_freed_between_what_is_kept_is_given_back() -> None:
    pieces = [bytes(60_000) for _ in range(2_000)]
    kept = pieces[::20]
    before = resident_bytes()
    del pieces
    give_back()
    assert before - resident_bytes() > 80 * MIB
    assert len(kept) == 100


def test_memory_is_given_back_as_it_grows_after_a_start() -> None:
    settling = Settling(1_000, 80)
    assert not settling.is_due(900, 90)
    assert settling.is_due(500, 91)
    assert [settling.is_due(0, resident) for resident in (64, 70, 72, 73)] == [False, False, False, True]
    looks = [settling.is_due(0, 70) for _ in range(200)]
    assert sum(looks) == 1, "once more at the end, and never again"
    assert not settling.is_due(0, 1_000)


def test_memory_that_has_shrunk_by_itself_may_not_grow_back() -> None:
    settling = Settling(1_000, 160)
    assert not settling.is_due(900, 80)
    assert settling.is_due(900, 91)


def test_an_actor_that_found_nothing_gives_nothing_back() -> None:
    settling = Settling(0, 80)
    assert not any(settling.is_due(0, resident) for resident in range(80, 400))


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    own = tmp_path / "cgroup"
    own.write_text("0::/outer/inner\n")
    everything = available_bytes(tmp_path, own)
    (inner / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path, own) == everything
    (tmp_path / "outer" / "memory.max").write_text(f"{200 * MIB}\n")
    assert available_bytes(tmp_path, own) == 200 * MIB
    (inner / "memory.max").write_text(f"{100 * MIB}\n")
    assert available_bytes(tmp_path, own) == 100 * MIB


def test_a_container_sees_its_own_limit_at_the_root(tmp_path: Path) -> None:
    """Its path may be the host's, which is not there."""
    own = tmp_path / "cgroup"
    own.write_text("0::/docker/abcdef\n")
    (tmp_path / "memory.max").write_text(f"{300 * MIB}\n")
    assert available_bytes(tmp_path, own) == 300 * MIB


def test_actors_share_what_there_is() -> None:
    assert default_bytes(1) >= default_bytes(2) >= MEMORY_BYTES_MIN


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("134217728", 128 * MIB), ("512MiB", 512 * MIB), ("2 GiB", 2048 * MIB), ("128mib", 128 * MIB)],
)
def test_a_bound_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert memory_bytes("--memory-max", text) == size


@pytest.mark.parametrize("text", ["1", "64MiB", "9" * 5000, "512MB", "-1", "much", "1.5GiB", "95MiB"])
def test_what_is_no_bound_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="--memory-max"):
        memory_bytes("--memory-max", text)


def test_a_bound_that_is_too_little_is_told_with_its_unit() -> None:
    with pytest.raises(UsageError, match=r"--memory-max 12 \(12 bytes\) is too little: at least 96MiB"):
        memory_bytes("--memory-max", "12")
    with pytest.raises(UsageError, match="--memory-max 1MiB is too little"):
        memory_bytes("--memory-max", "1MiB")


def test_bounds_beyond_what_there_is_are_warned_of() -> None:
    with capture_logs() as logs:
        warn_if_short(2, available_bytes() // 2)
        assert not logs
        warn_if_short(2, available_bytes() // 2 + 1)
    assert [(each["event"], each["log_level"]) for each in logs] == [("memory_overcommitted", "warning")]
    assert "--memory-max" in logs[0]["hint"]


WRONG = NodeOptions(actor=ActorOptions(evict="users"))  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    "settings",
    [NodeSettings(name="n1", node=WRONG), LocalClusterSettings(node=WRONG)],
)
def test_what_cannot_be_evicted_names_the_option(settings: NodeSettings | LocalClusterSettings) -> None:
    with pytest.raises(UsageError, match="--evict must be none or anonymous; it is 'users'"):
        settings.check()
