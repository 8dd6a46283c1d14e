"""A plan in words."""

import msgspec

from simulations.plans.plan import Fault, Plan

_DEFAULTS = msgspec.to_builtins(Plan(seed=0))


def tell_plan(plan: Plan) -> str:
    """Return what a plan holds, readably."""
    settings = msgspec.to_builtins(plan)
    told = [
        f"{name}={settings[name]}"
        for name in settings
        if name not in ("seed", "actions", "faults") and settings[name] != _DEFAULTS.get(name)
    ]
    lines = [f"seed {plan.seed}: {plan.nodes} nodes, {plan.shards} shards, {len(plan.actions)} actions"]
    lines.append("    " + (", ".join(told) or "all settings at their defaults"))
    lines += [f"    {tell_fault(fault)}" for fault in plan.faults]
    return "\n".join(lines)


def tell_fault(fault: Fault) -> str:
    """Return a fault as a line of a script."""
    words = [f"at {fault.at_ms / 1000:.3f} s", fault.kind, fault.target]
    if fault.other:
        words.append(f"and {fault.other}")
    if fault.amount:
        words.append(f"({fault.amount:g})")
    if fault.seconds:
        words.append(f"for {fault.seconds:g} s")
    return " ".join(word for word in words if word)
