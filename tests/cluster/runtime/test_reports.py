"""Reports of a thread reach the loop: all of them, in their order, and without a wake-up for each."""

import threading

import pytest
import trio

from greenroom_cluster.runtime.poller import Poller
from greenroom_cluster.runtime.reports import Reports
from tests.cluster.runtime.loopback import until

pytestmark = pytest.mark.trio

COUNT = 20_000


async def test_all_reports_of_a_thread_are_taken_in_their_order() -> None:
    taken: list[int] = []
    poller = Poller()
    reports = Reports(poller, taken.append)
    reports.put(0)  # before anybody polls

    def work() -> None:
        for number in range(1, COUNT):
            reports.put(number)

    thread = threading.Thread(target=work)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        thread.start()
        await until(lambda: len(taken) == COUNT)
        reports._receive()
        nursery.cancel_scope.cancel()
    thread.join()
    poller.close()
    reports.put(COUNT)  # a thread may end after the loop
    reports.close()
    assert taken == list(range(COUNT))


async def test_reports_that_come_together_wake_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr("os.eventfd_write", lambda _, value: written.append(value))
    taken: list[str] = []
    poller = Poller()
    reports = Reports(poller, taken.append)
    for report in "abc":
        reports.put(report)
    assert written == [1]
    reports._receive()
    reports.put("d")
    assert taken == ["a", "b", "c"]
    assert written == [1, 1]
    reports.close()
    poller.close()
