"""Open connections of a listener, judged again: one ends if its certificate or token counts no more."""

from collections.abc import Iterable
from math import inf

from greenroom.tls.standing import Proven
from greenroom_cluster.runtime.connection import FramedConnection
from greenroom_cluster.runtime.proving import Gate
from greenroom_cluster.runtime.refusals import tell_not_allowed
from greenroom_cluster.tokens.table import Bearer

_JUDGE_US = 30_000_000


class Judge:
    """Judges after files were read anew, when a token ends, and each half minute."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._judged_by: object = (gate.current, gate.tokens)
        self._next_us = 0.0

    def judge(self, connections: Iterable[FramedConnection], now_us: int) -> None:
        """End those of these connections that must end by now, if it is time to look."""
        loaded, tokens = self._gate.current, self._gate.tokens
        if (loaded, tokens) == self._judged_by and now_us < self._next_us:
            return
        seconds = now_us / 1e6
        ends = inf if tokens is None else tokens.next_end(seconds)
        self._judged_by = loaded, tokens
        self._next_us = min(now_us + _JUDGE_US, ends * 1e6)
        for connection in list(connections):
            match connection.proven:
                case Proven() as proven:
                    objection = loaded.trusted.objection(proven, seconds)
                case Bearer() as proven:
                    # It was let in, so there are tokens.
                    objection = "" if tokens is None else tokens.objection(proven, seconds)
                case None:
                    continue
            if objection:
                tell_not_allowed(connection, proven, objection)
                connection.abort(objection)
