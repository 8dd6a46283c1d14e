"""What reaches the store whatever way a handler ends, on each server and in each framework."""

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from greenroom.web import Session
from tests.servers.running import SECRET, SERVERS, Server, is_here, running

pytestmark = [pytest.mark.system, pytest.mark.filterwarnings("ignore:connect.. must be used")]

FRAMEWORKS = ["starlette", "quart", "litestar"]
SAVED_SECONDS = 20.0
CLOSED_SECONDS = 2.0
"""For a busy machine: it takes a few milliseconds."""
RESET = struct.pack("ii", 1, 0)


class Browser:
    """Keeps a cookie, asks pages, and opens WebSockets, of one framework on one server."""

    def __init__(self, server: Server, port: int, framework: str) -> None:
        self.server = server
        self._base = f"127.0.0.1:{port}"
        self._framework = framework
        self.http = httpx.Client(base_url=f"http://{self._base}", timeout=30, verify=False)
        # Never one that is kept alive: a server that has told a failure may be about to close it.
        apart = httpx.Limits(max_keepalive_connections=0)
        self._inspector = httpx.Client(
            base_url=f"http://{self._base}", timeout=30, verify=False, limits=apart
        )

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())

    def get(self, page: str) -> httpx.Response:
        return self.http.get(f"/{self._framework}/{page}")

    def held(self) -> Any:
        """What the store holds for the cookie, or None; asked on a connection of its own."""
        return self._inspector.get("/held", headers={"cookie": self.cookie}).json()

    def seen(self) -> list[str]:
        """What tasks that outlived their requests were told."""
        told: list[str] = self._inspector.get("/seen").json()
        return told

    def close(self) -> None:
        self.http.close()
        self._inspector.close()

    def until(self, condition: Callable[[Any], bool]) -> Any:
        """Return what is held once it fulfils the condition."""
        deadline = time.monotonic() + SAVED_SECONDS
        while not condition(held := self.held()):
            assert time.monotonic() < deadline, f"the store holds {held}"
        return held

    def leave_early(self, page: str) -> None:
        """Ask for a page and reset the connection once its answer has begun."""
        host, port = self._base.split(":")
        with socket.create_connection((host, int(port)), 30) as sock:
            request = (
                f"GET /{self._framework}/{page} HTTP/1.1\r\nhost: localhost\r\ncookie: {self.cookie}\r\n\r\n"
            )
            sock.sendall(request.encode())
            received = b""
            while received.count(b"x" * 100) < 20:
                received += sock.recv(65536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def socket(self, what: str) -> ClientConnection:
        """Open a WebSocket, and take the cookie that it brings."""
        if (self.server.name, self._framework) == ("daphne", "quart"):
            pytest.skip("Quart asks the scope of a WebSocket for its scheme, which daphne leaves out")
        headers = {"cookie": self.cookie} if self.cookie else {}
        opened = connect(f"ws://{self._base}/{self._framework}/socket/{what}", additional_headers=headers)
        assert opened.response is not None
        for value in opened.response.headers.get_all("set-cookie"):
            for name, morsel in SimpleCookie(value).items():
                self.http.cookies.set(name, morsel.value, domain="127.0.0.1")
        return opened


@pytest.fixture(scope="session", params=SERVERS, ids=lambda server: re.sub(r"\W", "-", server.name))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server and its port; skipped where it is not installed."""
    server: Server = request.param
    if not is_here(server):
        pytest.skip(f"{server.name} is not installed: {', '.join(server.needs)}")
    log: Path = tmp_path_factory.mktemp("servers") / "log"
    with running(server, log) as port:
        yield server, port


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def browser(served: tuple[Server, int], framework: str) -> Iterator[Browser]:
    """A browser whose user has logged in."""
    opened = Browser(*served, framework)
    assert opened.get("login").status_code == 200
    assert opened.held()["user"] == "alice"
    yield opened
    opened.close()


# --- requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("page", "status"), [("return", 200), ("refuses", 403)])
def test_an_answer_saves_before_it_is_there(browser: Browser, page: str, status: int) -> None:
    assert browser.get(page).status_code == status
    assert browser.held()["n"] == 1


def test_a_handler_that_fails_has_changed_nothing(browser: Browser) -> None:
    assert browser.get("fails").status_code == 500
    assert "n" not in browser.held()


@pytest.mark.parametrize("framework", ["starlette", "litestar"], indirect=True)
def test_work_after_the_answer_is_saved(browser: Browser) -> None:
    """Quart's background tasks are none of their request."""
    assert browser.get("background").status_code == 200
    browser.until(lambda held: held.get("n") == 1)


def test_a_stream_is_saved_when_it_ends_and_not_when_the_connection_does(browser: Browser) -> None:
    """A connection that is kept alive for the next request must not keep the change from being stored."""
    assert len(browser.get("stream").content) == 2048
    browser.until(lambda held: held.get("sent") == 1)


def test_a_stream_whose_reader_leaves_is_saved(browser: Browser) -> None:
    browser.leave_early("endless")
    browser.until(lambda held: held.get("sent", 0) >= 1)


def test_what_is_done_after_the_request_has_ended_raises(browser: Browser) -> None:
    before = len(browser.seen())
    assert browser.get("detaches").status_code == 200
    deadline = time.monotonic() + SAVED_SECONDS
    while len(seen := browser.seen()) == before:
        assert time.monotonic() < deadline
    assert seen[before:] == ["SessionOverError"]
    assert "late" not in browser.held()


# --- WebSockets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abrupt", [False, True])
def test_a_socket_that_its_client_leaves_is_saved(browser: Browser, *, abrupt: bool) -> None:
    socket_ = browser.socket("echo")
    for word in ("one", "two"):
        socket_.send(word)
        assert socket_.recv() == "ok"
    end(socket_, abrupt=abrupt)
    browser.until(lambda held: held.get("got") == "two")


@pytest.mark.parametrize("abrupt", [False, True])
def test_a_socket_that_only_sends_is_saved_when_its_client_leaves(browser: Browser, *, abrupt: bool) -> None:
    socket_ = browser.socket("sends")
    for _ in range(5):
        socket_.recv()
    end(socket_, abrupt=abrupt)
    assert browser.until(lambda held: "sent" in held)["sent"] >= 4


@pytest.mark.parametrize("what", ["closes", "returns"])
def test_a_socket_that_the_handler_ends_is_saved(browser: Browser, what: str) -> None:
    """Also where the server leaves it open (daphne, after a handler that returns)."""
    with browser.socket(what):
        browser.until(lambda held: held.get("n") == 1)


def test_a_socket_whose_handler_fails_has_changed_nothing(browser: Browser) -> None:
    with browser.socket("fails") as socket_, pytest.raises(ConnectionClosed):
        socket_.recv()
    assert "n" not in browser.held()


@pytest.mark.parametrize("what", ["echo", "sends"])
def test_a_socket_is_closed_when_its_user_logs_out(browser: Browser, what: str) -> None:
    """By a request to another page, whatever its handler is about."""
    socket_ = browser.socket(what)
    if what == "echo":
        socket_.send("one")
    socket_.recv()
    assert browser.get("logout").status_code == 200
    acknowledged = time.monotonic()
    with pytest.raises(ConnectionClosed) as closed:
        read_on(socket_)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    assert time.monotonic() - acknowledged < CLOSED_SECONDS


@pytest.mark.parametrize(("what", "user"), [("login", "bob"), ("regenerate", "alice")])
def test_a_new_id_before_accept_reaches_the_browser_or_is_refused(
    browser: Browser, what: str, user: str
) -> None:
    before = browser.cookie
    if browser.server.drops_accept_headers:
        with pytest.raises((InvalidHandshake, ConnectionClosed)):
            browser.socket(what)
        assert browser.held()["user"] == "alice", "the id that the browser has is alive"
        return
    browser.socket(what).close()
    assert browser.cookie != before
    assert browser.until(lambda held: held is not None)["user"] == user


def test_a_session_begun_before_accept_is_kept_or_refused(served: tuple[Server, int], framework: str) -> None:
    browser = Browser(*served, framework)
    if browser.server.drops_accept_headers:
        with pytest.raises((InvalidHandshake, ConnectionClosed)):
            browser.socket("begins")
        return
    browser.socket("begins").close()
    assert browser.held()["n"] == 1


# How hypercorn stops depends on the version of Python.
ONE_OF_EACH = {each.command[0]: each for each in reversed(SERVERS) if each.command[0] != "hypercorn"}


@pytest.mark.parametrize("server", ONE_OF_EACH.values(), ids=list(ONE_OF_EACH))
def test_what_a_socket_has_saved_outlives_a_stop_of_the_server(server: Server, tmp_path: Path) -> None:
    """What it has not saved does so only where the handler is told, or cancelled."""
    if not is_here(server):
        pytest.skip(f"{server.name} is not installed: {', '.join(server.needs)}")
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    with running(server, tmp_path / "log", store=url) as port:
        browser = Browser(server, port, "starlette")
        assert browser.get("login").status_code == 200
        opened = [browser.socket(what) for what in ("echo", "saves")]
        for socket_ in opened:
            socket_.send("one")
            assert socket_.recv() == "ok"

    async def stored() -> Any:
        async with Session(store=url, secret=SECRET, dev=True) as sessions:
            session_id = sessions.signer.verify(browser.http.cookies[sessions.cookie.name].encode())
            assert session_id is not None
            return await sessions.store.get(session_id)

    data = asyncio.run(stored()).data
    assert data["kept"] == "one"
    assert "got" in data or server.leaves_sockets  # which may tell it all the same


def read_on(connection: ClientConnection) -> None:
    """Read all that comes on a WebSocket, until it is closed."""
    while True:
        connection.recv(CLOSED_SECONDS)


def end(connection: ClientConnection, *, abrupt: bool) -> None:
    """Close a WebSocket in order, or reset its connection without a word."""
    if abrupt:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.socket.close()
    else:
        connection.close()
