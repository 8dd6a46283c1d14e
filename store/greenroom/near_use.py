"""What an actor lets clients show without asking, as it tells an operator."""

import msgspec


class NearUse(msgspec.Struct, frozen=True, gc=False):
    """What one actor holds for clients now, and what came of that since it started.

    `held` are sessions, each for one connection; `refused` were to be held and were not. Of the changes that
    waited for holders, `waits`, some waited until the leases of these were over: `waits_lapsed`. Together
    they waited for `waited_seconds`, the longest for `waited_seconds_max`. `hits`: how often clients have
    shown what it holds, as far as they have told.
    """

    held: int = 0
    granted: int = 0
    refused: int = 0
    invalidations: int = 0
    waits: int = 0
    waits_lapsed: int = 0
    waited_seconds: float = 0.0
    waited_seconds_max: float = 0.0
    hits: int = 0
