"""The plan that a seed stands for, in one of several profiles.

Every third seed stands for a cluster whose coordinators are on etcd, whatever the profile.
"""

from collections.abc import Callable

from simulations.plans.durable import durable, mixed
from simulations.plans.etcd import EVERY, on_etcd
from simulations.plans.generation import make_plan
from simulations.plans.near import near
from simulations.plans.plan import Plan
from simulations.plans.watched import watched


def _as_it_is(plan: Plan) -> Plan:
    return plan


PROFILES: dict[str, Callable[[Plan], Plan]] = {
    "": _as_it_is,
    "durable": durable,
    "mixed": mixed,
    "etcd": _as_it_is,
    "near": near,
    "near-mixed": lambda plan: near(mixed(plan)),
    "watched": watched,
    "watched-near": lambda plan: watched(near(plan)),
}
"""What seeds can stand for. With "etcd" all of them stand on it; else every third does."""


def plan_of(seed: int, profile: str = "") -> Plan:
    """Return the plan of a seed in a profile."""
    plan = make_plan(seed)
    if profile == "etcd" or seed % EVERY == 0:
        plan = on_etcd(plan)
    return PROFILES[profile](plan)
