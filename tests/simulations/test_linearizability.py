"""The checker finds lost, stale, repeated and resurrected results, and accepts every true history."""

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.checks.linearizability import (
    Operation,
    State,
    UndecidedError,
    after,
    assert_explained,
    check_history,
    check_session,
    read_history,
    write_history,
)


def op(kind: Any, begin: int, end: int, answer: Any = None, **more: Any) -> Operation:
    """One operation on session "s"; `answer` is the version, "?" for unknown, or the reason of a refusal."""
    fields: dict[str, Any] = {"client": "c", "session": "s", "key": "s/0", **more}
    if answer == "?":
        fields |= {"outcome": "unknown"}
    elif isinstance(answer, str):
        fields |= {"outcome": "failed", "reason": answer, "completed_ns": end}
    else:
        fields |= {"outcome": "ok", "version": answer, "completed_ns": end}
    return Operation(kind=kind, invoked_ns=begin, **fields)


def put(begin: int, end: int, answer: Any, path: str, value: Any, **more: Any) -> Operation:
    return op("patch", begin, end, answer, set=[([path], value)], **more)


def seen(begin: int, end: int, version: int | None, result: dict[str, Any] | None, **more: Any) -> Operation:
    return op("get", begin, end, version, result=result, **more)


BORN = op("create", 0, 1, 1, data={"x": 0})

GOOD = {
    "reads follow writes": [BORN, put(2, 3, 2, "x", 1), seen(4, 5, 2, {"x": 1})],
    "an overlapping read may see either": [
        BORN,
        put(2, 9, 2, "x", 1),
        seen(3, 4, 1, {"x": 0}),
        seen(5, 6, 2, {"x": 1}),
    ],
    "writes that overlap take either order": [
        BORN,
        put(2, 9, 3, "x", 1),
        put(3, 8, 2, "x", 2),
        seen(10, 11, 3, {"x": 1}),
    ],
    "an unknown write may have applied": [BORN, put(2, 0, "?", "x", 1), seen(4, 5, 2, {"x": 1})],
    "an unknown write may have been lost": [BORN, put(2, 0, "?", "x", 1), seen(4, 5, 1, {"x": 0})],
    "an unknown write may apply late": [
        BORN,
        put(2, 0, "?", "x", 1),
        seen(4, 5, 1, {"x": 0}),
        seen(6, 7, 2, {"x": 1}),
    ],
    "an unavailable write left no trace": [
        BORN,
        put(2, 3, "unavailable", "x", 1),
        seen(4, 5, 1, {"x": 0}),
    ],
    "a deleted session is gone, and its id can be born again": [
        BORN,
        op("delete", 2, 3),
        seen(4, 5, None, None),
        put(6, 7, "not_found", "x", 1),
        op("create", 8, 9, 7, data={"y": 1}),
        seen(10, 11, 7, {"y": 1}),
    ],
    "a delete that finds nothing may come after an overlapping create": [
        op("delete", 0, 9),
        op("create", 1, 4, 1, data={"x": 0}),
        seen(2, 3, None, None),
        seen(5, 6, 1, {"x": 0}),
        seen(10, 11, None, None),
    ],
    "a rotation moves the session in one step": [
        BORN,
        op("rotate", 2, 9, 2, new_key="s/1", set=[(["user"], "u")], result={"x": 0, "user": "u"}),
        seen(3, 4, 1, {"x": 0}),
        seen(5, 6, None, None),
        seen(10, 11, 2, {"x": 0, "user": "u"}, key="s/1"),
    ],
    "an unknown rotation may have killed the old id": [BORN, op("rotate", 2, 0, "?"), seen(4, 5, None, None)],
    "conditional writes are refused rightly": [
        BORN,
        put(2, 3, "conflict", "x", 5, expect=[(["x"], 4)]),
        put(4, 5, 2, "x", 5, expect=[(["x"], 0)]),
        op("update", 6, 7, "conflict", data={"x": 9}, expected_version=1),
        op("update", 8, 9, 3, data={"x": 9}, expected_version=2),
        op("create", 10, 11, "exists", data={}),
        seen(12, 13, 3, {"x": 9}),
    ],
    "patches of two paths merge": [
        BORN,
        op("patch", 2, 5, 2, set=[(["cart", "a"], 1)], result={"x": 0, "cart": {"a": 1}}),
        op("patch", 3, 6, 3, set=[(["cart", "b"], [1, 2])], result={"x": 0, "cart": {"a": 1, "b": [1, 2]}}),
        op("patch", 7, 8, 4, unset=[["cart", "a"]], result={"x": 0, "cart": {"b": [1, 2]}}),
        op("patch", 9, 10, 5, set=[(["cart"], {"c": 3})], result={"x": 0, "cart": {"b": [1, 2], "c": 3}}),
        op("patch", 11, 12, 6, set=[(["cart"], 7)], result={"x": 0, "cart": 7}),
    ],
}

BAD = {
    "stale read": [BORN, put(2, 3, 2, "x", 1), seen(4, 5, 1, {"x": 0})],
    "lost write": [
        BORN,
        put(2, 3, 2, "x", 1),
        put(4, 5, 3, "y", 1),
        seen(6, 7, 3, {"x": 0, "y": 1}),
    ],
    "read of a value that then vanished": [
        BORN,
        put(2, 0, "?", "x", 1),
        seen(4, 5, 2, {"x": 1}),
        seen(6, 7, 1, {"x": 0}),
    ],
    "reads that go back while a write is under way": [
        BORN,
        put(2, 20, 2, "x", 1),
        seen(3, 4, 2, {"x": 1}),
        seen(5, 6, 1, {"x": 0}),
    ],
    "resurrection after a delete": [BORN, op("delete", 2, 3), seen(4, 5, 1, {"x": 0})],
    "resurrection by a patch": [
        BORN,
        op("delete", 2, 3),
        put(4, 5, 2, "x", 1),
    ],
    "an unknown delete undone": [
        BORN,
        op("delete", 2, 0, "?"),
        seen(4, 5, None, None),
        seen(6, 7, 1, {"x": 0}),
    ],
    "double application": [
        BORN,
        put(2, 3, 2, "x", 1),
        put(4, 5, 3, "x", 2),
        seen(6, 7, 4, {"x": 1}),
    ],
    "unknown write applied twice": [
        BORN,
        put(2, 0, "?", "x", 1),
        seen(4, 5, 2, {"x": 1}),
        put(6, 7, 3, "x", 2),
        seen(8, 9, 3, {"x": 2}),
        seen(10, 11, 4, {"x": 1}),
    ],
    "a write that was reported as not applied": [
        BORN,
        put(2, 3, "unavailable", "x", 1),
        seen(4, 5, 2, {"x": 1}),
    ],
    "an effect before its invocation": [BORN, seen(2, 3, 2, {"x": 1}), put(4, 5, 2, "x", 1)],
    "an old id that works after its rotation": [
        BORN,
        op("rotate", 2, 3, 2, new_key="s/1"),
        seen(4, 5, 1, {"x": 0}),
    ],
    "a rotation that lost the cart": [BORN, op("rotate", 2, 3, 2, new_key="s/1", result={})],
    "two creates of one id": [BORN, op("create", 2, 3, 2, data={})],
    "a version given twice": [
        BORN,
        op("delete", 2, 3),
        op("create", 4, 5, 1, data={"x": 0}),
    ],
    "a condition that did not hold": [BORN, put(2, 3, 2, "x", 5, expect=[(["x"], 4)])],
    "a stale version accepted": [
        BORN,
        put(2, 3, 2, "x", 1),
        op("update", 4, 5, 3, data={"x": 9}, expected_version=1),
    ],
    "a refusal without a reason": [BORN, put(2, 3, "conflict", "x", 5, expect=[(["x"], 0)])],
    "a live session reported missing": [BORN, put(2, 3, "not_found", "x", 5)],
    "a create refused for nothing": [op("create", 0, 1, "exists", data={})],
    "one version, two contents": [
        BORN,
        op("update", 2, 0, "?", data={"x": 1}),
        seen(4, 5, 2, {"x": 1}),
        op("update", 6, 0, "?", data={"x": 2}),
        seen(8, 9, 2, {"x": 2}),
    ],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=list(GOOD))
def test_true_histories_are_explained(history: list[Operation]) -> None:
    assert_explained(history)


@pytest.mark.parametrize("history", BAD.values(), ids=list(BAD))
def test_false_histories_are_found(history: list[Operation]) -> None:
    assert check_history(history)


def test_a_violation_names_the_first_result_that_nothing_explains() -> None:
    history = BAD["stale read"]
    violation = check_session(history)
    assert violation is not None
    assert violation.operation is history[2]
    assert "nothing explains" in str(violation)
    with pytest.raises(AssertionError, match="1 sessions with lost or stale"):
        assert_explained(history)


def test_sessions_are_judged_apart() -> None:
    other = [
        op("create", 0, 1, 1, data={}, session="t", key="t/0"),
        seen(2, 3, None, None, session="t", key="t/0"),
    ]
    violations = check_history([*GOOD["reads follow writes"], *other])
    assert [violation.session for violation in violations] == ["t"]


def test_too_much_overlap_is_reported_and_never_passed() -> None:
    history = [BORN, *(put(2, 0, "?", f"k{n}", n) for n in range(24))]
    history.append(seen(3, 4, 99, {"x": 0, **{f"k{n}": n for n in range(23)}, "other": 1}))
    with pytest.raises(UndecidedError, match="unknown outcome"):
        check_session(history, configurations_max=1000)


def test_a_history_survives_its_file(tmp_path: Any) -> None:
    history = [operation for operations in GOOD.values() for operation in operations]
    write_history(tmp_path / "history.jsonl", history)
    assert read_history(tmp_path / "history.jsonl") == history


def simulated(seed: int, *, operations: int, clients: int, sessions: int) -> list[Operation]:
    """A true history: overlapping operations that take effect at a random instant of their interval."""
    rng = random.Random(seed)
    free = [0] * clients
    planned = []
    for _ in range(operations):
        client = min(range(clients), key=lambda index: free[index])
        begin = free[client] + rng.randrange(1, 5)
        end = begin + rng.randrange(2, 40)
        free[client] = end
        planned.append((rng.randrange(begin, end + 1), begin, end, client, rng.randrange(sessions)))
    history, states = [], dict.fromkeys(range(sessions), State())
    for version, (_, begin, end, client, session) in enumerate(sorted(planned), start=1):
        common = {"client": f"c{client}", "session": f"s{session}", "key": f"s{session}/0"}
        record = states[session].record(common["key"])
        kind = rng.choice(["create", "get", "get", "patch", "patch", "update", "delete"])
        if kind == "get":
            result = None if record is None else {path[0]: value for path, value in record.data}
            history.append(seen(begin, end, record.version if record else None, result, **common))
            continue
        common |= {
            "create": {"data": {"born": version}},
            "update": {"data": {"k0": version}},
            "patch": {"set": [([f"k{rng.randrange(4)}"], version)]},
            "delete": {},
        }[kind]
        operation = op(kind, begin, end, None if kind == "delete" else version, **common)
        unknown, lost = rng.random() < 0.01, rng.random() < 0.5
        state = after(states[session], operation)
        if unknown:
            operation = op(kind, begin, end, "?", **common)
        elif state is None:
            operation = op(kind, begin, end, "exists" if kind == "create" else "not_found", **common)
        if state is not None and not (unknown and lost):
            states[session] = state
        history.append(operation)
    return history


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), clients=st.integers(1, 6), sessions=st.integers(1, 3))
def test_simulated_histories_are_explained(seed: int, clients: int, sessions: int) -> None:
    assert_explained(simulated(seed, operations=120, clients=clients, sessions=sessions))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_dropping_an_observed_write_from_a_history_is_found(seed: int) -> None:
    history = simulated(seed, operations=80, clients=3, sessions=1)
    observed = {operation.version for operation in history if operation.kind == "get" and operation.version}
    lost = [operation for operation in history if operation.kind != "get" and operation.version in observed]
    for victim in lost:
        assert check_history([operation for operation in history if operation is not victim])


def test_thousands_of_operations_take_seconds() -> None:
    history = simulated(5, operations=20_000, clients=40, sessions=200)
    begin = time.process_time()
    assert_explained(history)
    assert time.process_time() - begin < 20
