"""Metrics and traces of an app's sessions, for who asks for them.

>>> from greenroom.observing import observe
>>> from greenroom.observing.prometheus import PrometheusObserver
>>>
>>> observe(sessions, PrometheusObserver())            # of a web app: its store, its pages, its events
>>> store = ObservedStore(store, PrometheusObserver()) # of a store without web sessions

Nothing else imports this package: what nobody observes pays nothing for it. An `Observer` of one's own
overrides what it wants to know.
"""

from typing import TYPE_CHECKING, Any

from greenroom.observing.observer import KINDS, OUTCOMES, PAGES, Observer, Operation, Page
from greenroom.observing.store import ObservedStore

if TYPE_CHECKING:
    from greenroom.observing.sessions import observe

__all__ = ["KINDS", "OUTCOMES", "PAGES", "ObservedStore", "Observer", "Operation", "Page", "observe"]


def __getattr__(name: str) -> Any:
    """Import on first use: a store without web sessions needs no cookies."""
    if name == "observe":
        from greenroom.observing.sessions import observe

        return observe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
