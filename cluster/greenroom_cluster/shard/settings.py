"""Settings of the replication core that an operator may change, and how they must relate."""

from typing import Literal, TypeAlias, get_args

import msgspec

from greenroom.errors import UsageError
from greenroom.near_messages import CLOCK_DRIFT
from greenroom_cluster.quotas import Quota

NS_PER_SECOND = 1_000_000_000
US_PER_SECOND = 1_000_000

DISK_FREE_BYTES_MIN = 128 << 20
"""With less room on the disk of its directory an actor takes nothing in but what ends sessions."""

Evicted: TypeAlias = Literal["none", "anonymous"]
"""Which sessions may end before their time when memory is full."""


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times, limits and windows of one actor's replicas.

    `near_seconds` is how long clients may show what they hold, 0: not at all. `watches_max` is how many
    sessions clients may watch here for their ends.

    A backup's grace must outlast the primary's lease by more than two clocks can drift apart in that time;
    construction raises UsageError if it does not, or if one limit leaves no room for another.
    """

    beacon_seconds: float = 0.25
    lease_seconds: float = 1.0
    grace_seconds: float = 1.25
    acknowledge_seconds: float = 1.0
    operation_deadline_seconds: float = 5.0
    repropose_seconds: float = 1.0
    join_retry_seconds: float = 0.25
    refused_retry_seconds: float = 0.01
    sweep_seconds: float = 1.0
    sweep_pause_seconds: float = 0.005
    prepare_bytes_max: int = 256 * 1024
    prepares_in_flight_max: int = 4
    chunk_bytes: int = 256 * 1024
    chunks_in_flight_max: int = 2
    joins_max: int = 32
    joins_per_peer_max: int = 4
    uncommitted_bytes_max: int = 8 << 20
    held_requests_max: int = 4096
    held_bytes_max: int = 8 << 20
    clients_max: int = 10_000
    replies_max: int = 4096
    replies_bytes_max: int = 8 << 20
    patch_bytes_max: int = 2 << 20
    listed_max: int = 20_000
    fanned_out_max: int = 8192
    page_max: int = 256
    step_bytes: int = 64 * 1024
    sweep_looks_max: int = 128
    memory_bytes_max: int = 1 << 62
    eviction: Evicted = "none"
    quotas: tuple[Quota, ...] = ()
    expire_batch_max: int = 512
    log_bytes_min: int = 64 << 20
    disk_free_bytes_min: int = DISK_FREE_BYTES_MIN
    departed_seconds: float = 60.0
    stall_seconds: float = 3.0
    near_seconds: float = 0.0
    watches_max: int = 200_000

    def __post_init__(self) -> None:
        """Refuse settings that would break the guarantees."""
        if self.grace_seconds <= self.lease_seconds * (1 + CLOCK_DRIFT):
            raise UsageError(
                f"grace_seconds ({self.grace_seconds}) must be more than lease_seconds "
                f"({self.lease_seconds}) plus {CLOCK_DRIFT:.0%}: raise grace_seconds or lower lease_seconds"
            )
        if self.beacon_seconds * 2 > self.lease_seconds:
            raise UsageError(
                f"beacon_seconds ({self.beacon_seconds}) must be at most half of lease_seconds "
                f"({self.lease_seconds}), so that one lost beacon does not cost the lease"
            )
        if not 0 <= self.near_seconds <= self.lease_seconds:
            raise UsageError(
                f"near_seconds ({self.near_seconds}) must be at least 0 and at most lease_seconds "
                f"({self.lease_seconds}): lower near_seconds (--near-seconds)"
            )
        if self.near_seconds * (1 + CLOCK_DRIFT) > self.grace_seconds:
            raise UsageError(
                f"near_seconds ({self.near_seconds}) plus {CLOCK_DRIFT:.0%} must be at most grace_seconds "
                f"({self.grace_seconds}): lower near_seconds (--near-seconds)"
            )
        if not isinstance(self.quotas, tuple):
            raise UsageError(f"quotas must be a tuple of Quota; it is {self.quotas!r}")
        if self.eviction not in get_args(Evicted):
            raise UsageError(f"eviction must be one of {', '.join(get_args(Evicted))}; it is {self.eviction}")
        for name in self.__struct_fields__:
            if name not in ("eviction", "near_seconds", "quotas") and getattr(self, name) <= 0:
                raise UsageError(f"{name} must be more than 0")

    @property
    def forget_us(self) -> int:
        """How long a silent client's replies are kept, microseconds of shard time."""
        return int(10 * self.operation_deadline_seconds * US_PER_SECOND)


def ns(seconds: float) -> int:
    """Return seconds as integer nanoseconds."""
    return int(seconds * NS_PER_SECOND)
