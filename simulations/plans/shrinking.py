"""Shrinks a plan that breaks a rule to the shortest story that still breaks it.

Delta debugging (Zeller and Hildebrandt, 2002): halves, quarters and so on are left out while the same rule
still breaks. What is left is run with less of everything else, too.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from simulations.plans.plan import Plan

Item = TypeVar("Item")

RUNS_MAX = 600


class Shrinker:
    """Makes a plan smaller while `breaks(plan)` holds, in at most `runs_max` runs."""

    def __init__(self, breaks: Callable[[Plan], bool], runs_max: int = RUNS_MAX) -> None:
        self.runs = 0
        self._breaks = breaks
        self._runs_max = runs_max

    def shrink(self, plan: Plan) -> Plan:
        """Return the smallest plan found that still breaks the rule."""
        before = None
        while plan != before and self.runs < self._runs_max:
            before = plan
            plan = self._fewer_faults(plan)
            plan = self._fewer_actions(plan)
            plan = self._simpler(plan)
        return plan

    def _try(self, plan: Plan) -> bool:
        if self.runs >= self._runs_max:
            return False
        self.runs += 1
        return self._breaks(plan)

    def _fewer_faults(self, plan: Plan) -> Plan:
        return replace(plan, faults=self._fewer(plan.faults, lambda kept: replace(plan, faults=kept)))

    def _fewer_actions(self, plan: Plan) -> Plan:
        return replace(plan, actions=self._fewer(plan.actions, lambda kept: replace(plan, actions=kept)))

    def _fewer(self, items: tuple[Item, ...], made: Callable[[tuple[Item, ...]], Plan]) -> tuple[Item, ...]:
        size = max(1, len(items))
        while size:
            position = 0
            while position < len(items):
                kept = items[:position] + items[position + size :]
                if len(kept) < len(items) and self._try(made(kept)):
                    items = kept
                else:
                    position += size
            size //= 2
        return items

    def _simpler(self, plan: Plan) -> Plan:
        for change in _SIMPLER:
            candidate = replace(plan, **change)
            if candidate != plan and self._try(candidate):
                plan = candidate
        return plan


_SIMPLER: Sequence[dict[str, object]] = (
    {"coordinators": 0, "coordinator_rates": (), "etcd_rates": ()},
    {"coordinators": 2},
    {"rates": ()},
    {"coordinator_rates": (), "etcd_rates": ()},
    {"encoded": False},
    {"secret": False},
    {"tokens": False},
    {"quota_sessions": 0, "quota_bytes": 0},
    {"former_nodes": 0},
    {"zones": ()},
    {"tenants": False, "quota_sessions": 0, "quota_bytes": 0},
    {"fixed_ports": False},
    {"clients": 1, "callers": 1},
    {"clients": 1},
    {"shards": 1},
    {"shards": 2},
    {"actors": 1},
    {"nodes": 2},
    {"nodes": 3},
    {"replicas": 2},
    {"deadline_seconds": 5.0},
    {"deadline_ms": 0},
    {"chunk_bytes": 256 * 1024},
    {"prepares_in_flight": 4},
    {"page_max": 256},
    {"step_bytes": 64 * 1024},
    {"evicts": False},
    {"disk_ms": 1.0},
)
