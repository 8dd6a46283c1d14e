"""Every metric of an app by its name, as Prometheus has it: what it tells, its kind, and its labels. Pure.

The values of labels are words of the code, so that their number is bounded whatever apps do.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """A metric of an app. `condition` says what it takes for it to be there; empty: nothing."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    condition: str = ""


OPERATIONS = Metric(
    "greenroom_store_operations_total",
    "counter",
    "operations of stores, by kind and by what came of them",
    ("kind", "outcome"),
)
SECONDS = Metric(
    "greenroom_store_operation_seconds",
    "histogram",
    "time of an operation, as the app waits for it",
    ("kind",),
)
PAGE_SECONDS = Metric(
    "greenroom_page_seconds",
    "histogram",
    "time that loading, saving and extending the session of a request took",
    ("outcome",),
)
BOUNDS_SECONDS = tuple(2**bit * 1e-9 for bit in range(13, 34, 2))
"""Those of the buckets, from 8 µs to 8.6 s: every second bound of the servers' histograms."""
PAGES_OF_SESSIONS = Metric(
    "greenroom_pages_total", "counter", "requests by what they did to their session", ("outcome",)
)
EVENTS = Metric(
    "greenroom_session_events_total",
    "counter",
    "events of an app's sessions, as `statistics()` of its `Session` names them",
    ("event",),
)

_NEAR = "with a ClusterStore"
NEAR: Mapping[str, Metric] = {
    "entries": Metric("greenroom_store_near_entries", "gauge", "sessions kept now", condition=_NEAR),
    "hits": Metric(
        "greenroom_store_near_hits_total", "counter", "sessions shown from memory", condition=_NEAR
    ),
    "misses": Metric(
        "greenroom_store_near_misses_total", "counter", "sessions that had to be asked for", condition=_NEAR
    ),
    "lapsed": Metric(
        "greenroom_store_near_lapsed_total",
        "counter",
        "of the misses, those that were kept and may not be shown",
        condition=_NEAR,
    ),
    "invalidations": Metric(
        "greenroom_store_near_invalidations_total",
        "counter",
        "sessions dropped because they changed elsewhere",
        condition=_NEAR,
    ),
    "revoked": Metric(
        "greenroom_store_near_revoked_total", "counter", "sessions dropped with their shard", condition=_NEAR
    ),
    "evicted": Metric(
        "greenroom_store_near_evicted_total", "counter", "sessions dropped to make room", condition=_NEAR
    ),
    "refused": Metric(
        "greenroom_store_near_refused_total",
        "counter",
        "sessions that were to be kept, and the cluster did not hold",
        condition=_NEAR,
    ),
}
"""By the counters of `ClusterStore.near`."""

METRICS = (OPERATIONS, SECONDS, PAGES_OF_SESSIONS, PAGE_SECONDS, EVENTS, *NEAR.values())
