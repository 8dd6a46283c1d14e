"""Looking at a cluster again and again, also while nobody answers."""

from collections.abc import Callable

import pytest

from greenroom_cluster.cli import watching
from greenroom_cluster.cli.screen import Screen
from greenroom_cluster.cluster_status import ClusterStatus
from greenroom_cluster.questions import NoNodeError

pytestmark = pytest.mark.trio

STATUS = ClusterStatus("shop", 1, 5, 2, (), (), ())


def looks(monkeypatch: pytest.MonkeyPatch, *answers: ClusterStatus | NoNodeError) -> None:
    """Have the cluster answer so, look by look."""
    left = list(answers)

    async def inspect(*_: object, **__: object) -> ClusterStatus:
        answer = left.pop(0)
        if isinstance(answer, NoNodeError):
            raise answer
        return answer

    monkeypatch.setattr(watching, "inspect_cluster", inspect)


async def watched(count: int, seen: Callable[[ClusterStatus], None], missed: Callable[[str], None]) -> None:
    import sys

    screen = Screen(sys.stdout, live=False)
    await watching.watch(["h:1"], "shop", 0.001, count, screen, seen, missed, credentials=None)


async def test_an_outage_is_shown_and_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch, STATUS, NoNodeError("h:1 is away"), STATUS)
    told: list[object] = []
    await watched(3, told.append, told.append)
    assert told == [STATUS, "h:1 is away", STATUS]


async def test_a_first_look_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    looks(monkeypatch, NoNodeError("h:1 is away"), STATUS)
    told: list[object] = []
    with pytest.raises(NoNodeError, match="h:1 is away"):
        await watched(3, told.append, told.append)
    assert told == []
