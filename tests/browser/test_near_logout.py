"""Four workers of uvicorn with near caches: once a browser has logged out, none of them shows its page.

Each worker is asked for the page all the time on a connection of its own, from before the logout until long
after it. The line is the answer to the logout, as the browser has it.
"""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anyio.from_thread import start_blocking_portal

from greenroom.dialog.near import NearCounts
from greenroom_cluster.runtime.local import open_local_cluster
from tests.browser.conftest import PAGE_MILLISECONDS, SETTINGS, what_is_missing
from tests.browser.near_site import COOKIE, NOBODY, SHOWN, WORKER
from tests.servers.running import ROOT, free_port
from tests.system.stage import stopped

pytestmark = [pytest.mark.browser, pytest.mark.system, pytest.mark.timeout(300)]

WORKERS = 4
ROUNDS = int(os.environ.get("GREENROOM_NEAR_LOGOUTS", "6"))
SECONDS = 60.0
POLLS_BEFORE, POLLS_AFTER = 20, 200
HITS_BEFORE = 10
LAPSED_SECONDS = 0.33
PATIENCE_SECONDS = 1.5
"""For a busy machine and a browser, beside what is promised."""


class Site:
    """The workers of one server, by process id, and a connection to each."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._port = port

    def connect(self) -> tuple[int, http.client.HTTPConnection]:
        """Connect to some worker; return which it is. Raises OSError if none answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        connection.request("GET", "/counts")
        answer = connection.getresponse()
        answer.read()
        return int(answer.headers[WORKER]), connection

    def connect_all(self) -> dict[int, http.client.HTTPConnection]:
        """Connect to all workers. Those that have a connection stand still until the others have one."""
        found: dict[int, http.client.HTTPConnection] = {}
        try:
            while len(found) < WORKERS:
                worker, connection = self.connect()
                assert worker not in found, "it stands still"
                found[worker] = connection
                os.kill(worker, signal.SIGSTOP)
        finally:
            for worker in found:
                os.kill(worker, signal.SIGCONT)
        return found


class Poller(threading.Thread):
    """Asks one worker for the page, again and again; `seen` is when it asked, and the status that it got."""

    def __init__(self, worker: int, connection: http.client.HTTPConnection, cookie: str) -> None:
        super().__init__()
        self.worker = worker
        self._connection = connection
        self._cookie = cookie
        self.seen: list[tuple[int, int]] = []
        self.sent_ns = 0
        self.hits_before = 0
        self.counts = NearCounts()
        self.may_ask = threading.Event()
        self.may_ask.set()
        self.over = False
        self.rests = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._count()
            self.hits_before = self.counts.hits
            while not self.over:
                if not self.may_ask.is_set():
                    self.rests.set()
                    self.may_ask.wait()
                    continue
                began_ns = time.monotonic_ns()
                self.seen.append((began_ns, self._ask("/page")[0]))
                if len(self.seen) % POLLS_BEFORE == 0:
                    self._count()
            self._count()
        except BaseException as error:  # noqa: BLE001  handed to the test's thread
            self.failure = error

    @property
    def hits(self) -> int:
        """How often the worker has shown a session from memory since this began."""
        return self.counts.hits - self.hits_before

    def _count(self) -> None:
        self.counts = msgspec.json.decode(self._ask("/counts")[1], type=NearCounts)

    def _ask(self, path: str) -> tuple[int, bytes]:
        self._connection.request("GET", path, headers={"cookie": f"{COOKIE}={self._cookie}"})
        self.sent_ns = time.monotonic_ns()
        answer = self._connection.getresponse()
        body = answer.read()
        assert int(answer.headers[WORKER]) == self.worker
        if path == "/page":
            assert (SHOWN.encode() in body) == (answer.status == 200)
        return answer.status, body

    def rest(self) -> None:
        """Ask no more for now."""
        self.may_ask.clear()
        assert self.rests.wait(SECONDS)

    def asked_since(self, began_ns: int) -> list[int]:
        """The statuses of what was asked since then."""
        return [status for asked_ns, status in tuple(self.seen) if asked_ns >= began_ns]


@contextmanager
def polling(site: Site, cookie: str) -> Iterator[list[Poller]]:
    """Ask every worker around the body; each shows the page from its memory when that begins."""
    pollers = [Poller(worker, connection, cookie) for worker, connection in site.connect_all().items()]
    for each in pollers:
        each.start()
    try:
        for each in pollers:
            until(each, lambda each=each: each.hits > HITS_BEFORE and len(each.seen) > POLLS_BEFORE)
        yield pollers
    finally:
        for each in pollers:
            each.over = True
            each.may_ask.set()
            each.join(SECONDS)
            assert each.failure is None, each.failure


def until(poller: Poller, condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert poller.failure is None, poller.failure
        assert time.monotonic() < deadline, poller.seen[-3:]
        poller.join(0.005)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Uvicorn with four workers, over a coordinator and three nodes."""
    if missing := what_is_missing():
        pytest.skip(missing)
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal("trio"))
        cluster = stack.enter_context(portal.wrap_async_context_manager(open_local_cluster(SETTINGS)))
        log = stack.enter_context((tmp_path_factory.mktemp("near") / "uvicorn.log").open("wb"))
        port = free_port()
        process = subprocess.Popen(
            (
                *(sys.executable, "-m", "uvicorn", "tests.browser.near_site:app", "--port", str(port)),
                *("--workers", str(WORKERS), "--log-level", "warning", "--timeout-keep-alive", "120"),
            ),
            env={
                **os.environ,
                "GREENROOM_TEST_STORE": f"{cluster.url}?near_sessions=1000&near_eager=true",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        stack.callback(ended, process)
        site = Site(port)
        until_serving(site, process, Path(log.name))
        yield site


def ended(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def until_serving(site: Site, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            site.connect()[1].close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
        else:
            return


def logged_in(tab: Any, site: Site) -> int:
    """Log in; return which worker has shown the page."""
    tab.goto(f"{site.address}/page")
    with tab.expect_response(lambda each: each.url.endswith("/page") and each.status == 200) as shown:
        tab.get_by_role("button", name="Log in").click()
    tab.get_by_text(SHOWN).wait_for()
    return int(shown.value.headers[WORKER])


def log_out(tab: Any) -> int:
    """Log out; return when the browser had the answer."""
    with tab.expect_response(lambda each: each.url.endswith("/logout")) as answered:
        tab.get_by_role("button", name="Log out").click()
    ended_ns = time.monotonic_ns()
    assert answered.value.status == 200
    tab.get_by_text("Logged out").wait_for()
    return ended_ns


def log_out_beside(late: Poller, tab: Any) -> int:
    """Log out while a worker stands still, and ask that for the page before it goes on."""
    late.rest()
    with stopped(late.worker):
        began_ns = time.monotonic_ns()
        ended_ns = log_out(tab)
        late.may_ask.set()
        until(late, lambda: late.sent_ns >= ended_ns)
    assert ended_ns - began_ns < (LAPSED_SECONDS + PATIENCE_SECONDS) * 1e9
    return ended_ns


def judge(pollers: list[Poller], ended_ns: int) -> None:
    """Demand that nobody was shown the page who asked after the logout."""
    for each in pollers:
        until(each, lambda each=each: len(each.asked_since(ended_ns)) >= POLLS_AFTER)
    for each in pollers:
        assert set(each.asked_since(ended_ns)) == {401}, each.worker
        assert each.seen[0][1] == 200
        assert each.hits > HITS_BEFORE


@pytest.mark.parametrize("stopped", [False, True], ids=["awake", "one-stands-still"])
def test_no_worker_shows_a_page_again_after_its_logout(site: Site, chrome: Any, *, stopped: bool) -> None:
    """One that stands still is asked before it goes on: that is the first thing it answers."""
    for _ in range(ROUNDS):
        context = chrome.new_context()
        context.set_default_timeout(PAGE_MILLISECONDS)
        tab = context.new_page()
        served = logged_in(tab, site)
        (cookie,) = [each["value"] for each in context.cookies() if each["name"] == COOKIE]
        with polling(site, cookie) as pollers:
            if stopped:
                ended_ns = log_out_beside(next(each for each in pollers if each.worker != served), tab)
            else:
                ended_ns = log_out(tab)
            judge(pollers, ended_ns)
        assert tab.goto(f"{site.address}/page").status == 401
        tab.get_by_text(NOBODY).wait_for()
        context.close()
