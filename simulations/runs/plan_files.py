"""Reads plans by seed or file, and checks them."""

from pathlib import Path

import msgspec

from greenroom.errors import UsageError
from simulations.faults.injection import KINDS
from simulations.faults.targets import check_target
from simulations.plans.plan import ACTION_KINDS, DURABILITIES, Plan
from simulations.plans.seeds import plan_of

SHARDS_MAX = 4096
COORDINATORS_MAX = 9


def read_plan(text: str, profile: str = "") -> Plan:
    """Return the plan of a seed, or the one in a file. Raises UsageError."""
    if text.isdecimal():
        return plan_of(int(text), profile)
    try:
        told = Path(text).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{text!r} is neither a seed nor a file that can be read ({error.strerror}); "
            "`replay SEED --save FILE` writes one"
        ) from None
    try:
        plan = msgspec.json.decode(told, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{text} is not a plan as `replay --save` writes it: {error}") from None
    check_plan(plan, text)
    return plan


def check_plan(plan: Plan, where: str) -> None:
    """Raise UsageError for a plan that no world can be made of."""
    for name in ("nodes", "actors", "replicas", "clients", "callers", "sessions", "chunk_bytes"):
        if getattr(plan, name) < 1:
            raise UsageError(f"{where}: {name} must be at least 1")
    if plan.seconds <= 0 or plan.latency_us < 1 or plan.jitter_us < 0 or plan.disk_ms < 0:
        raise UsageError(
            f"{where}: seconds and latency_us must be more than 0, jitter_us and disk_ms not less"
        )
    if not 1 <= plan.shards <= SHARDS_MAX or plan.shards & (plan.shards - 1):
        raise UsageError(f"{where}: shards must be a power of two up to {SHARDS_MAX}, not {plan.shards}")
    if plan.secret and plan.tenants:
        raise UsageError(
            f"{where}: secret and tenants exclude each other: who proves a secret has no certificate, which "
            "alone can name a namespace"
        )
    if bool(plan.quota_sessions) != bool(plan.quota_bytes) or (plan.quota_sessions and not plan.tenants):
        raise UsageError(f"{where}: a quota needs quota_sessions, quota_bytes and tenants")
    if plan.secret and plan.tokens:
        raise UsageError(
            f"{where}: secret and tokens exclude each other: a token is taken within TLS only, and a secret "
            "is proven without"
        )
    if not 0 <= plan.coordinators <= COORDINATORS_MAX:
        raise UsageError(f"{where}: coordinators must be 0, for one with a file, to {COORDINATORS_MAX}")
    for mode in plan.durability:
        if mode not in DURABILITIES:
            raise UsageError(f"{where}: durability must be of {', '.join(DURABILITIES)}, not {mode!r}")
    _check_events(plan, where)


def _check_events(plan: Plan, where: str) -> None:
    for action in plan.actions:
        if action.kind not in ACTION_KINDS:
            raise UsageError(
                f"{where}: there is no action {action.kind!r}; there are: {', '.join(ACTION_KINDS)}"
            )
    for fault in plan.faults:
        if fault.kind not in KINDS:
            raise UsageError(
                f"{where}: there is no fault {fault.kind!r}; there are: {', '.join(sorted(KINDS))}"
            )
        if fault.at_ms < 0 or fault.seconds < 0:
            raise UsageError(f"{where}: {fault.kind}: neither its time nor its seconds can be less than 0")
        for target in (fault.target, fault.other):
            if target:
                check_target(target)
