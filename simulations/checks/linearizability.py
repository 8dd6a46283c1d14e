"""Histories of store operations, and the check that some order of them explains every result.

The check is the search of Wing and Gong (1993): is there a sequence of the operations, each placed between
its invocation and its completion, in which every result is what the model says? It runs forward in time and
places an operation only when a completion forces it ("just in time"), and remembers configurations (state,
operations placed early), which is Lowe's memoisation ("Testing for linearizability", 2017). Sessions are
independent, so each is searched alone; a session and the ids that it is rotated to count as one, because a
rotation touches both ids in one step.

An operation whose outcome is unknown may take effect at any time after its invocation, or never. One that was
answered "unavailable" was promised not to have been applied: it is left out, so that its effect, if anybody
sees it, has no explanation.

Times are nanoseconds of CLOCK_MONOTONIC, comparable between the processes of one host.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Literal, TypeAlias

import msgspec

from simulations.checks.states import Leaf, Leaves, Path, Record, State

Kind: TypeAlias = Literal["create", "get", "update", "patch", "delete", "rotate", "list", "purge", "expire"]
Outcome: TypeAlias = Literal["ok", "failed", "unknown"]
Reason: TypeAlias = Literal["", "exists", "not_found", "conflict", "unavailable"]

CONFIGURATIONS_MAX = 200_000


class Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a store and what became of it.

    `session` names the session across its rotations, `key` one of its ids (an alias, never the id itself).
    A "list" tells by `listed` which ids are alive, with their versions; a "purge" ends all of them. An
    "expire" is no call: from its invocation on `key` may end by itself, at any time and any number of times.
    `data` is what a create or update stores; `set`, `unset`, `expect` are those of a patch or rotate, and
    `expect` holds None for a path that must be absent. `expected_version` is the condition of an update.
    Results: `version` and `result` (None: no such session) after an "ok", `new_key` of a rotation (also
    of one whose outcome is unknown, if the caller minted the id), `reason` after a "failed".
    """

    client: str
    session: str
    kind: Kind
    key: str
    invoked_ns: int
    completed_ns: int = 0
    outcome: Outcome = "unknown"
    reason: Reason = ""
    data: dict[str, Any] | None = None
    set: list[tuple[list[str], Any]] = []
    unset: list[list[str]] = []
    expect: list[tuple[list[str], Any]] = []
    expected_version: int | None = None
    version: int | None = None
    result: dict[str, Any] | None = None
    new_key: str = ""
    listed: dict[str, int] = {}

    def __str__(self) -> str:
        parts = [f"{self.invoked_ns}..{self.completed_ns or '?'} {self.client} {self.kind} {self.key}"]
        for name in ("data", "set", "unset", "expect", "expected_version"):
            value = getattr(self, name)
            if value:
                parts.append(f"{name}={value}")
        answer = self.outcome if self.outcome != "failed" else f"failed:{self.reason}"
        parts.append(f"-> {answer}")
        if self.outcome == "ok" and self.kind != "delete":
            parts.append(f"version={self.version} {self.result if self.result is not None else ''}")
        if self.new_key:
            parts.append(f"new={self.new_key}")
        return " ".join(parts)


# --- the model -------------------------------------------------------------------------------------------


def leaves(data: Mapping[str, Any], prefix: Path = ()) -> Leaves:
    """Return nested data as the set of its (path, value), which makes merging a matter of sets.

    An empty dict leaves no trace: the model does not tell it from an absent one.
    """
    found: set[Leaf] = set()
    for key, value in data.items():
        if isinstance(value, Mapping):
            found |= leaves(value, (*prefix, key))
        else:
            found.add(((*prefix, key), _frozen(value)))
    return frozenset(found)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _patched(data: Leaves, operation: Operation) -> Leaves:
    for path in operation.unset:
        data = _cut(data, tuple(path), ancestors=False)
    for path, value in operation.set:
        whole = tuple(path)
        added = leaves(value, whole) if isinstance(value, Mapping) else frozenset({(whole, _frozen(value))})
        for leaf, _ in added:
            data = _cut(data, leaf, ancestors=True)
        data |= added
    return data


def _cut(data: Leaves, path: Path, *, ancestors: bool) -> Leaves:
    """Return `data` without what lies at or below `path`, and without scalars that stand above it."""
    return frozenset(
        (leaf, value)
        for leaf, value in data
        if leaf[: len(path)] != path and not (ancestors and path[: len(leaf)] == leaf)
    )


def _expected(data: Leaves, operation: Operation) -> bool:
    for path, value in operation.expect:
        whole = tuple(path)
        below = frozenset(item for item in data if item[0][: len(whole)] == whole)
        if value is None:
            wanted: Leaves = frozenset()
        else:
            wanted = (
                leaves(value, whole) if isinstance(value, Mapping) else frozenset({(whole, _frozen(value))})
            )
        if below != wanted:
            return False
    return True


def after(state: State, operation: Operation) -> State | None:
    """Return the state after `operation` took effect here, or None if its result cannot be explained so."""
    record = state.record(operation.key)
    if operation.outcome == "failed":
        return state if _refused_rightly(record, operation) else None
    match operation.kind:
        case "get":
            return _after_get(state, record, operation)
        case "create":
            if record is not None:
                return None
            return _written(state, operation, operation.key, leaves(operation.data or {}))
        case "delete" | "expire":
            return state.without(operation.key)
        case "purge":
            return state._replace(live=())
        case "list":
            return _after_list(state, operation)
        case "update":
            if record is None or not _version_fits(record, operation.expected_version):
                return None
            return _written(state, operation, operation.key, leaves(operation.data or {}))
        case "patch" | "rotate":
            if record is None or not _expected(record.data, operation):
                return None
            if operation.kind == "patch":
                return _written(state, operation, operation.key, _patched(record.data, operation))
            gone = state.without(operation.key)
            if operation.outcome == "unknown" and not operation.new_key:  # nobody was told the new id
                return gone
            return _written(gone, operation, operation.new_key, _patched(record.data, operation))


def _refused_rightly(record: Record | None, operation: Operation) -> bool:
    match operation.reason:
        case "exists":
            return record is not None
        case "not_found":
            return record is None
        case "conflict" if record is not None:
            version = operation.expected_version
            if version is not None and not (record.exact and record.version == version):
                return True
            return bool(operation.expect) and not _expected(record.data, operation)
    return False


def _after_get(state: State, record: Record | None, operation: Operation) -> State | None:
    if operation.result is None:
        return state if record is None else None
    if record is None or record.data != leaves(operation.result):
        return None
    if not _version_fits(record, operation.version):
        return None
    return state if record.exact else state.having(operation.key, _exact(record, operation.version))


def _after_list(state: State, operation: Operation) -> State | None:
    listed = operation.listed
    if listed.keys() != {key for key, _ in state.live}:
        return None
    for key, record in state.live:
        if not _version_fits(record, listed[key]):
            return None
        if not record.exact:
            state = state.having(key, _exact(record, listed[key]))
    return state


def _exact(record: Record, version: int | None) -> Record:
    return record if version is None else Record(version, exact=True, data=record.data)


def _version_fits(record: Record, version: int | None) -> bool:
    if version is None:
        return True
    return version == record.version if record.exact else version > record.version


def _written(state: State, operation: Operation, key: str, data: Leaves) -> State | None:
    if operation.outcome == "unknown":
        return state.having(key, Record(state.given(key), exact=False, data=data))
    if operation.version is None or operation.version <= state.given(key):
        return None  # a version that was given before
    if operation.result is not None and leaves(operation.result) != data:
        return None
    return state.having(key, Record(operation.version, exact=True, data=data))


# --- the search ------------------------------------------------------------------------------------------


Configuration: TypeAlias = tuple[int, int]
"""Where a search may stand: the number of a state, and which operations still under way it has placed.

Sets of operations are integers with a bit for each: a long search compares very many of them. It also makes
very many configurations, and a named tuple takes several times as long to make.
"""


class Violation(msgspec.Struct, frozen=True):
    """No order of the operations explains the result of `operation`."""

    session: str
    operation: Operation
    states: tuple[State, ...]
    context: tuple[Operation, ...]

    def __str__(self) -> str:
        lines = [f"session {self.session}: nothing explains", f"    {self.operation}"]
        lines.append("  the states possible before it:")
        lines += [f"    {state}" for state in self.states[:5]]
        lines.append("  what happened around it:")
        lines += [f"    {operation}" for operation in self.context]
        return "\n".join(lines)


class UndecidedError(Exception):
    """The search gave up: too many operations of one session overlap, or too many have no known outcome."""


class _Reach:
    """A state that a search has come to, and what operations do there, as far as anybody asked.

    `tried` are the operations asked about. Those that fit are in `observing` if they only observe, which is
    to be placed at once; else in `moves`, with the number of the state that they lead to.
    """

    __slots__ = ("moves", "observing", "state", "tried")

    def __init__(self, state: State) -> None:
        self.state = state
        self.tried = 0
        self.observing = 0
        self.moves: list[tuple[int, int]] = []


class _Search:
    """Places the operations of one session, completion by completion."""

    def __init__(self, operations: Sequence[Operation], configurations_max: int, *, apart: bool) -> None:
        self.operations = operations
        self.budget = configurations_max
        self.open = 0
        self.unknown = _bits(operations, lambda operation: operation.outcome == "unknown")
        self.endless = _bits(operations, lambda operation: operation.kind == "expire")
        self._reached: list[_Reach] = []
        self._numbers: dict[State, int] = {}
        self.configurations: set[Configuration] = {(self._number(State(floors=() if apart else None)), 0)}

    @property
    def states(self) -> tuple[State, ...]:
        """The states that are possible now."""
        return tuple({self._reached[state].state for state, _ in self.configurations})

    def complete(self, index: int) -> bool:
        """Keep the configurations that explain this operation's result; False if there are none."""
        completed, under_way, endless = 1 << index, self.open, self.endless
        found: set[Configuration] = set()
        seen = {self._settled(state, placed) for state, placed in self.configurations}
        stack = list(seen)
        at = self._at
        while stack:
            state, placed = stack.pop()
            if placed & completed:
                found.add((state, placed & ~completed))
                continue
            free = under_way & ~placed
            for other, following in at(state).moves:
                if not other & free:
                    continue
                # As `_settled` does, without the call.
                configuration = (following, placed | other & ~endless | at(following).observing & under_way)
                if configuration not in seen:
                    self._spend()
                    seen.add(configuration)
                    stack.append(configuration)
        self.open &= ~completed
        if found:
            self.configurations = self._least(found)
        return bool(found)

    def _spend(self) -> None:
        self.budget -= 1
        if self.budget < 0:
            raise UndecidedError(
                f"session {self.operations[0].session}: gave up with {self.open.bit_count()} operations "
                f"under way, {self.unknown.bit_count()} of them of unknown outcome; spread the load over "
                "more sessions"
            )

    def _number(self, state: State) -> int:
        number = self._numbers.setdefault(state, len(self._reached))
        if number == len(self._reached):
            self._reached.append(_Reach(state))
        return number

    def _at(self, number: int) -> _Reach:
        """Return a state with what each operation under way does there."""
        reach = self._reached[number]
        untried = self.open & ~reach.tried
        if untried:
            reach.tried |= untried
            while untried:
                bit = untried & -untried
                untried ^= bit
                self._try(reach, number, bit)
        return reach

    def _try(self, reach: _Reach, number: int, bit: int) -> None:
        operation = self.operations[bit.bit_length() - 1]
        state = after(reach.state, operation)
        if state is None:
            return
        following = self._number(state)
        if following == number:
            if bit & self.unknown:
                return  # it need never be placed
            if _only_observes(operation):
                reach.observing |= bit
                return
        reach.moves.append((bit, following))

    def _settled(self, state: int, placed: int) -> Configuration:
        """Place at once every read and refusal that fits here.

        They change nothing, so leaving one for later explains no more than placing it now. (Not so a delete
        that finds nothing: later it may have something to delete.)
        """
        return state, placed | self._at(state).observing & self.open

    def _least(self, reached: set[Configuration]) -> set[Configuration]:
        """Drop a configuration if another with the same state has used up fewer of the unknown operations.

        The other can do all that the dropped one can, because an unknown operation need never be placed.
        """
        if not self.unknown or len(reached) == 1:
            return reached
        groups: dict[tuple[int, int], list[int]] = {}
        for state, placed in reached:
            groups.setdefault((state, placed & ~self.unknown), []).append(placed & self.unknown)
        kept: set[Configuration] = set()
        for (state, known), used in groups.items():
            minimal: list[int] = []
            for candidate in sorted(used, key=int.bit_count):
                if not any(smaller & ~candidate == 0 for smaller in minimal):
                    minimal.append(candidate)
            kept |= {(state, known | part) for part in minimal}
        return kept


def _bits(operations: Sequence[Operation], chosen: Callable[[Operation], bool]) -> int:
    return sum(1 << index for index, operation in enumerate(operations) if chosen(operation))


def _only_observes(operation: Operation) -> bool:
    return operation.kind in ("get", "list") or operation.outcome == "failed"


def _bears_on_the_check(operation: Operation) -> bool:
    """Whether the operation has a result to explain or an effect that may explain others."""
    if operation.outcome == "failed":
        return operation.reason != "unavailable"
    return operation.outcome == "ok" or operation.kind not in ("get", "list")


def check_session(
    operations: Iterable[Operation], *, configurations_max: int = CONFIGURATIONS_MAX, apart: bool = False
) -> Violation | None:
    """Return the first violation in the operations of one session, in order of completion.

    The session must not exist when the history begins. Versions rise over all its ids, or if `apart` with
    each id alone. Raises UndecidedError after `configurations_max`
    steps of the search.
    """
    relevant = sorted(filter(_bears_on_the_check, operations), key=lambda operation: operation.invoked_ns)
    search = _Search(relevant, configurations_max, apart=apart)
    # An invocation comes before a completion of the same nanosecond: the two count as concurrent.
    events = [(operation.invoked_ns, 0, index) for index, operation in enumerate(relevant)]
    events += [
        (operation.completed_ns, 1, index)
        for index, operation in enumerate(relevant)
        if operation.outcome != "unknown"
    ]
    for _, is_completion, index in sorted(events):
        if not is_completion:
            search.open |= 1 << index
            continue
        before = search.states
        if not search.complete(index):
            return Violation(
                session=relevant[index].session,
                operation=relevant[index],
                states=before,
                context=tuple(relevant[max(0, index - 12) : index + 6]),
            )
    return None


def check_history(
    history: Iterable[Operation], *, configurations_max: int = CONFIGURATIONS_MAX, apart: bool = False
) -> list[Violation]:
    """Return a violation for every session whose operations no order explains; `apart` as above."""
    sessions: dict[str, list[Operation]] = {}
    for operation in history:
        sessions.setdefault(operation.session, []).append(operation)
    found = (
        check_session(operations, configurations_max=configurations_max, apart=apart)
        for operations in sessions.values()
    )
    return [violation for violation in found if violation is not None]


def assert_explained(history: Iterable[Operation], *, apart: bool = False) -> None:
    """Fail with the first few violations if the history has any; `apart` as above."""
    violations = check_history(history, apart=apart)
    if violations:
        shown = "\n".join(str(violation) for violation in violations[:3])
        raise AssertionError(f"{len(violations)} sessions with lost or stale results\n{shown}")


# --- files -----------------------------------------------------------------------------------------------


def write_history(path: FilePath, history: Sequence[Operation]) -> None:
    """Write a history as one JSON object a line, so that a failing run can be read and kept."""
    path.write_bytes(msgspec.json.Encoder().encode_lines(history))


def read_history(path: FilePath) -> list[Operation]:
    """Read what `write_history` wrote."""
    return msgspec.json.Decoder(Operation).decode_lines(path.read_bytes())
