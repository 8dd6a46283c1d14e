"""What a user of the command may get wrong: numbers, files and plans, each with what to do instead."""

import argparse
from collections.abc import Callable
from pathlib import Path

import msgspec

from greenroom.errors import UsageError
from simulations.faults import KINDS
from simulations.plan_generation import make_plan
from simulations.plans import ACTION_KINDS, Plan
from simulations.targets import check_target

SHARDS_MAX = 4096


def seeds(text: str) -> range:
    """Return the seeds that an argument names, "from:to" or one."""
    first, colon, last = text.partition(":")
    if not first.isdecimal() or (colon and not last.isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not FROM:TO, such as 0:200, nor one seed, such as 4711"
        )
    found = range(int(first), int(last) if colon else int(first) + 1)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} holds no seed: TO comes after the last, so 0:200 are 200")
    return found


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of arguments: whole numbers from `least` on."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def read_plan(text: str) -> Plan:
    """Return the plan of a seed, or the one in a file. Raises UsageError."""
    if text.isdecimal():
        return make_plan(int(text))
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


def check_writable(path: Path | None, option: str) -> None:
    """Raise UsageError now if a file cannot be written later."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another file with {option}") from None


def check_directory(path: Path, option: str) -> None:
    """Raise UsageError now if files cannot be written into a directory later."""
    probe = path / ".writable"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write into {path}: {error.strerror}; name another directory with {option}"
        ) from None
