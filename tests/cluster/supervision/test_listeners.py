"""Who could speak to a process, by the sockets on which it listens."""

import os
import socket
from pathlib import Path

import pytest
import trio

from greenroom_cluster.restarts import RestartSettings
from greenroom_cluster.runtime import hardening, supervised, supervision
from greenroom_cluster.runtime.hardening import check_listeners
from greenroom_cluster.runtime.listening import Listener, Listeners, listeners
from tests.cluster.supervision import children

ROOT = Path(__file__).parents[3]


@pytest.fixture
def before() -> Listeners:
    return listeners()


def unix_listener(path: Path | str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_a_port_is_exposed_also_on_loopback(before: Listeners) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        (found,) = listeners() - before
        assert found.exposed
        assert found.place == f"127.0.0.1 port {server.getsockname()[1]}"
    assert listeners() == before


def test_a_connected_or_unbound_socket_is_no_listener(before: Listeners) -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket():
        assert listeners() == before


@pytest.mark.parametrize(("mode", "exposed"), [(0o700, False), (0o710, True), (0o701, True), (0o755, True)])
def test_a_unix_socket_is_private_by_its_folder(
    tmp_path: Path, before: Listeners, mode: int, exposed: bool
) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    folder.chmod(mode)
    with unix_listener(folder / "s"):
        (found,) = listeners() - before
        assert found.exposed is exposed


def test_an_abstract_unix_socket_is_exposed(before: Listeners) -> None:
    with unix_listener(f"\0greenroom-{os.getpid()}"):
        (found,) = listeners() - before
        assert found.exposed


def test_a_folder_of_another_user_is_not_private(tmp_path: Path, before: Listeners) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = tmp_path / "f"
    folder.mkdir(mode=0o700)
    with unix_listener(folder / "s"):
        os.chown(folder, 65534, 65534)
        (found,) = listeners() - before
        assert found.exposed


def test_what_listened_before_or_privately_is_let_be() -> None:
    known = Listener(1, "127.0.0.1 port 80", exposed=True)
    private = Listener(2, "the socket '/p/s'", exposed=False)
    check_listeners(frozenset({known}), frozenset({known, private}))


def test_an_exposed_listener_is_refused_by_its_place() -> None:
    with pytest.raises(RuntimeError, match=r"tractor .* listens at 127\.0\.0\.1 port 1616, .*install"):
        check_listeners(frozenset(), frozenset({Listener(1, "127.0.0.1 port 1616", exposed=True)}))


@pytest.mark.trio
@pytest.mark.system
async def test_a_supervisor_ends_when_its_tractor_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard must not rest on the internals that keep tractor from listening."""
    root = hardening.open_root

    class Exposing:
        """A root that listens, as tractor's does if nothing is changed."""

        def __init__(self, name: str) -> None:
            self._root = root(name)
            self._server = socket.create_server(("127.0.0.1", 0))

        async def __aenter__(self) -> None:
            await self._root.__aenter__()

        async def __aexit__(self, *failure: object) -> bool | None:
            self._server.close()
            return await self._root.__aexit__(*failure)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(supervision, "open_root", Exposing)
    with trio.fail_after(10), pytest.raises(RuntimeError, match="listens at"):
        async with supervision.open_supervisor(
            "test", restarts=RestartSettings(), on_ready=print, on_exit=print
        ):
            pytest.fail("the body ran")


LISTENING = """
import socket, sys
if "--uid" in sys.orig_argv:  # a child of tractor, of any version
    kept = socket.create_server(("127.0.0.1", 0))
"""


@pytest.mark.trio
@pytest.mark.system
async def test_a_child_whose_tractor_listens_does_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LISTENING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))

    async def run() -> None:
        async with supervision.open_supervisor(
            "test", restarts=RestartSettings(restarts_max=1), on_ready=ready.append, on_exit=exited.append
        ) as supervisor:
            supervisor.start_child(supervision.ChildSpec("a", children.serve, children.ServeSettings))
            await trio.sleep_forever()

    ready: list[supervision.ChildProcess] = []
    exited: list[supervision.ChildProcess] = []
    with trio.fail_after(30), pytest.raises(supervision.RestartLimitError):
        await run()
    assert [child.exit_status for child in exited] == [supervised.EXIT_FAILED] * 2
    assert not ready
    assert "listens at 127.0.0.1 port" in capfd.readouterr().err
