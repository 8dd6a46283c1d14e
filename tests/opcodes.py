"""How many instructions of bytecode something takes: the same on every machine, for one version of Python."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def opcodes(work: Callable[[], object]) -> int:
    """Return how many instructions of bytecode this takes."""
    return _traced(work) if sys.version_info < (3, 12) else _monitored(work)


def _traced(work: Callable[[], object]) -> int:
    count, before = 0, sys.gettrace()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def _monitored(work: Callable[[], object]) -> int:
    # From 3.12 on a trace misses instructions of code that ran before it was set.
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    tool, event, count = monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, 0

    def note(_code: object, _offset: int) -> None:
        nonlocal count
        count += 1

    monitoring.use_tool_id(tool, "tests.opcodes")
    monitoring.register_callback(tool, event, note)
    monitoring.set_events(tool, event)
    try:
        work()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)
    return count
