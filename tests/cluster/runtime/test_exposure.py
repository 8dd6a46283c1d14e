"""A port beyond loopback needs TLS, or the one option that says otherwise; judged by what is bound."""

import random
import socket
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from greenroom.errors import UsageError
from greenroom.tls.credentials import Credentials
from greenroom_cluster.coordination.genesis import ClusterOptions
from greenroom_cluster.exposure import exposed
from greenroom_cluster.runtime.actor import Actor, ActorSettings
from greenroom_cluster.runtime.coordinator import CoordinatorServer, CoordinatorServerSettings
from greenroom_cluster.runtime.listener import Listener, ListenerSettings
from greenroom_cluster.runtime.ports import check_advertised, check_plaintext
from greenroom_cluster.shard.host import Host
from tests.authority import Authority
from tests.cluster.runtime.loopback import CLUSTER, SERVER, echo_service

NAME = "innocent.example"
OPTIONS = ("--tls-cert", "--tls-key", "--tls-ca", "--insecure-plaintext-beyond-loopback")
BEYOND = ["0.0.0.0", "::", "::ffff:0.0.0.0", NAME]


@pytest.fixture(autouse=True)
def _innocent_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for all addresses of this host."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        return look_up("0.0.0.0" if host == NAME else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def listener(host: str, **settings: Any) -> Listener:
    return Listener(ListenerSettings(CLUSTER, SERVER, host, **settings), echo_service())


def assert_told(caught: pytest.ExceptionInfo[UsageError], *parts: str) -> None:
    for part in (*parts, *OPTIONS):
        assert part in str(caught.value)


@pytest.mark.parametrize("host", BEYOND)
def test_listening_beyond_loopback_without_tls_is_refused(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(UsageError, match="beyond loopback") as caught:
        listener(host, port=port)
    assert_told(caught, "--listen", host)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@pytest.mark.trio
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::ffff:127.0.0.1"])
async def test_listening_on_loopback_is_not(host: str) -> None:
    with capture_logs() as logs:
        listener(host).close()
    assert logs == []


@pytest.mark.trio
@pytest.mark.parametrize("host", BEYOND)
async def test_the_override_listens_and_says_so(host: str) -> None:
    with capture_logs() as logs:
        made = listener(host, insecure=True)
    socket.create_connection(("127.0.0.1", made.port)).close()
    made.close()
    (log,) = logs
    assert (log["event"], log["log_level"]) == ("plaintext_beyond_loopback", "warning")


@pytest.mark.trio
async def test_with_tls_any_address_will_do(tmp_path: Path) -> None:
    holder = Authority().issue(f"greenroom://{CLUSTER}/node/a")
    credentials = Credentials(holder.files(tmp_path), lambda _: None)
    with capture_logs() as logs:
        listener("0.0.0.0", credentials=credentials).close()
    assert logs == []


def actor(host: str, **settings: Any) -> Actor:
    made = ActorSettings(
        incarnation=bytes(16), slot="n1/0", cluster="shop", coordinator="127.0.0.1:1", host=host, **settings
    )
    core = Host(made.incarnation, made.slot, made.options.core(), random.Random(1))
    return Actor(made, core)


@pytest.mark.trio
async def test_an_actor_refuses_too() -> None:
    with pytest.raises(UsageError) as caught:
        actor(NAME)
    assert_told(caught, "--actor-port-base", NAME)
    actor(NAME, insecure=True).listener.close()


@pytest.mark.trio
async def test_a_coordinator_refuses_too_and_frees_its_directory(tmp_path: Path) -> None:
    def coordinator(**settings: Any) -> CoordinatorServer:
        return CoordinatorServer(
            CoordinatorServerSettings(
                options=ClusterOptions("shop"), data_dir=str(tmp_path), host=NAME, **settings
            )
        )

    with pytest.raises(UsageError) as caught:
        coordinator()
    assert_told(caught, "--listen", NAME)
    coordinator(insecure=True).listener.close()


@pytest.mark.parametrize("host", BEYOND)
def test_a_supervisor_knows_before_it_starts_anything(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_plaintext(host, "--coordinator-listen")
    assert_told(caught, "--coordinator-listen", host)


@pytest.mark.parametrize("host", ["192.0.2.7", "fd00::1", NAME, "nowhere.invalid", "two..dots"])
def test_to_be_named_beyond_loopback_is_refused(host: str) -> None:
    """What stands for nothing here may stand for anything elsewhere."""
    with pytest.raises(UsageError) as caught:
        check_advertised(f"{host}:7400", host)
    assert_told(caught, "--advertise", host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_to_be_named_on_loopback_is_not(host: str) -> None:
    check_advertised(f"{host}:7400", host)


def test_all_that_an_address_stands_for_counts() -> None:
    assert not exposed("here:1", ("127.0.0.1", "::1"), "--advertise")
    assert exposed("here:1", ("127.0.0.1", "10.0.0.1"), "--advertise")
    assert exposed("here:1", (), "--advertise")
