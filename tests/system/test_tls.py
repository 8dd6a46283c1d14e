"""A cluster over mutual TLS: real processes, stores of both event loops, and those who are refused."""

import asyncio
import datetime as dt
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import greenroom
from greenroom import ClusterStore, SessionData, UnavailableError, UsageError, new_session_id, wire
from greenroom.framing import messages_decoder
from greenroom.tls.credentials import Credentials
from greenroom.tls.demands import Demand
from greenroom_cluster.coordination.messages import CoordinatorReply, ForgetNode, Rejected, ReportDead
from greenroom_cluster.inspection import inspect_cluster
from greenroom_cluster.runtime.dialing import DialFailedError, dial
from greenroom_cluster.runtime.ports import free_port
from greenroom_cluster.runtime.proving import Trust
from greenroom_cluster.runtime.reading import ConnectionEndedError
from greenroom_cluster.user_sessions import end_sessions_at
from tests.authority import Authority, Holder
from tests.system.raw import hello
from tests.system.test_mistakes import CLUSTER, Command, Host

pytestmark = [pytest.mark.system, pytest.mark.trio]

NODES = ("n1", "n2", "n3")


def uri(role: str, name: str, cluster: str = CLUSTER) -> str:
    return f"greenroom://{cluster}/{role}/{name}"


class Secured:
    """Three nodes and their coordinator, who speak TLS only."""

    def __init__(self, host: Host, folder: Path, *options: str) -> None:
        self._options = options
        self.authority = Authority()
        self._host = host
        self.coordinator_address = host.coordinator
        self._folder = folder
        self.nodes: dict[str, Command] = {}
        self.addresses = [f"127.0.0.1:{free_port()}" for _ in NODES]
        self.operator = self.credentials(self.authority.issue(uri("operator", "ops")))
        self.client = self.authority.issue(uri("client", "web"))

    def options(self, role: str, name: str) -> list[str]:
        return self.options_of(self.authority.issue(uri(role, name)), name)

    def options_of(self, holder: Holder, name: str) -> list[str]:
        """Write the files of a holder, over those of its name; return the options that name them."""
        files = holder.files(self._folder, name, flags=True)
        return ["--tls-cert", files.cert, "--tls-key", files.key, "--tls-ca", files.ca]

    def credentials(self, holder: Holder) -> Credentials:
        return Credentials(holder.files(self._folder), print)

    def url(self, holder: Holder) -> str:
        files = holder.files(self._folder)
        options = f"tls_cert={files.cert}&tls_key={files.key}&tls_ca={files.ca}&deadline_seconds=10"
        return f"greenrooms://{','.join(self.addresses)}/{CLUSTER}?{options}"

    async def start(self) -> None:
        await self.start_coordinator()
        for name in NODES:
            await self.start_node(name)
        with trio.fail_after(60):
            while not await self.is_healthy():
                await trio.lowlevel.checkpoint()

    async def start_coordinator(self) -> None:
        shards = ("--shards", "4", "--cluster", CLUSTER, "--data-dir", str(self._folder / "map"))
        listen = ("--listen", self._host.coordinator)
        self.coordinator = await self._host.start(
            "coordinator", *listen, *shards, *self.options("coordinator", "c1")
        )
        await self.coordinator.until_logged("coordinator_serves")

    async def start_node(self, name: str) -> None:
        address = self.addresses[NODES.index(name)]
        where = ("--name", name, "--listen", address, "--actors", "1", "--cluster", CLUSTER)
        to = ("--coordinator", self._host.coordinator)
        self.nodes[name] = await self._host.start(
            "node", *where, *to, *self.options("node", name), *self._options
        )

    async def is_healthy(self) -> bool:
        try:
            found = await inspect_cluster(self.addresses, CLUSTER, credentials=self.operator)
        except UnavailableError:
            return False
        return found.healthy and found.nodes_up == len(NODES)

    def refusals(self, name: str) -> list[str]:
        return [line.get("detail", line["reason"]) for line in self.nodes[name].logged("connection_refused")]


@asynccontextmanager
async def secured(folder: Path, *options: str) -> AsyncIterator[Secured]:
    """Run such a cluster, whose nodes have these options too."""
    async with trio.open_nursery() as nursery:
        cluster = Secured(Host(nursery, folder), folder, *options)
        await cluster.start()
        yield cluster
        for command in (cluster.coordinator, *cluster.nodes.values()):
            if command.process.returncode is None:
                command.process.kill()
        nursery.cancel_scope.cancel()


def new_session() -> SessionData:
    now = dt.datetime.now(dt.UTC)
    return SessionData(
        session_id=new_session_id(), data={"cart": ["tea"]}, expires=now + dt.timedelta(hours=1)
    )


async def exchange(url: str) -> Any:
    """Store a session and read it, in the event loop that runs."""
    async with greenroom.store_from_url(url) as store:
        await store.check(every_shard=True)
        session = new_session()
        await store.create(session)
        return (await store.get(session.session_id)).data == session.data


async def refused(url: str) -> str:
    """Return why a store at this URL gets nothing."""
    async with greenroom.store_from_url(url.replace("deadline_seconds=10", "deadline_seconds=2")) as store:
        with pytest.raises((UnavailableError, UsageError)) as caught:
            await store.check()
    return str(caught.value)


async def test_cluster_serves_whom_it_trusts_and_nobody_else(tmp_path: Path) -> None:
    async with secured(tmp_path) as cluster:
        good = cluster.url(cluster.client)
        assert await exchange(good)
        assert await trio.to_thread.run_sync(asyncio.run, exchange(good))

        await check_strangers(cluster)
        await check_plaintext(cluster)
        await check_roles(cluster)
        await check_pace(cluster)
        await check_reports(cluster)
        await check_commands(cluster)
        await check_failover(cluster, good)
        await check_audit(cluster, tmp_path)
        await check_ending(cluster)


async def check_strangers(cluster: Secured) -> None:
    stranger = Authority("stranger")
    ours = cluster.authority.pem
    issue = cluster.authority.issue
    with pytest.raises(UsageError, match=r"tls_cert: .*certificate has expired"):
        await refused(cluster.url(issue(uri("client", "web"), days=-0.5)))
    with pytest.raises(UsageError, match="tls_cert: the certificate is that of greenroom://shop/node/n1"):
        await refused(cluster.url(issue(uri("node", "n1"))))
    with pytest.raises(UsageError, match="tls_cert: the certificate is that of greenroom://mall/client/web"):
        await refused(cluster.url(issue(uri("client", "web", "mall"))))
    # It trusts its own CA and shows what that has issued: neither side is content.
    assert "its certificate is not valid" in await refused(cluster.url(stranger.issue(uri("client", "web"))))
    # It trusts ours too, so only the nodes can refuse it.
    both = stranger.issue(uri("client", "web"), ca=stranger.pem + ours)
    assert "does not trust the CA of our certificate" in await refused(cluster.url(both))


async def check_plaintext(cluster: Secured) -> None:
    plain = f"greenroom://{','.join(cluster.addresses)}/{CLUSTER}?deadline_seconds=2"
    assert "only TLS is spoken here" in await refused(plain)
    assert any("it speaks no TLS" in line for name in NODES for line in cluster.refusals(name))


HELD = ("client", "node", "coordinator", "operator", "observer")
ALLOWED = {
    ("client", wire.ROLE_CLIENT),
    ("node", wire.ROLE_PEER),
    ("node", wire.ROLE_ADMIN),
    ("operator", wire.ROLE_OPERATOR),
    ("operator", wire.ROLE_ADMIN),
    ("observer", wire.ROLE_ADMIN),
}
"""At an actor, where a coordinator has nothing to ask."""


async def check_roles(cluster: Secured) -> None:
    """A certificate allows what its role may do, at every port, whatever the hello says."""
    found = await inspect_cluster(cluster.addresses, CLUSTER, credentials=cluster.operator)
    actor = found.actors[0]
    incarnation = bytes.fromhex(actor.incarnation)
    holders = {role: cluster.credentials(cluster.authority.issue(uri(role, "n1"))) for role in HELD}
    async with trio.open_nursery() as nursery:
        for kind, credentials in holders.items():
            for role in (wire.ROLE_CLIENT, wire.ROLE_PEER, wire.ROLE_OPERATOR, wire.ROLE_ADMIN):
                target = b"" if role == wire.ROLE_CLIENT else incarnation
                trust = Trust(credentials, Demand(CLUSTER, ("node",), actor.slot.partition("/")[0]))
                greeting = hello(role, cluster=CLUSTER, target=target)
                code = ""
                try:
                    connection, _ = await dial(actor.address, greeting, nursery, trust=trust)
                    connection.close()
                except DialFailedError as error:
                    code = error.code
                assert code == ("" if (kind, role) in ALLOWED else "not-allowed"), f"{kind} as {role}"
        wrong = Trust(holders["client"], Demand(CLUSTER, ("node",), "another"))
        with pytest.raises(DialFailedError, match="node/another must answer here"):
            await dial(actor.address, hello(wire.ROLE_CLIENT, cluster=CLUSTER), nursery, trust=wrong)
        await check_messages(cluster, holders, actor.address, incarnation, nursery)
        nursery.cancel_scope.cancel()


async def check_messages(
    cluster: Secured,
    holders: dict[str, Credentials],
    actor: str,
    incarnation: bytes,
    nursery: trio.Nursery,
) -> None:
    """Of each role a message that it may say, and some that it may not, which end the connection."""
    get, inspect, subscribe = wire.Get(1, 0, bytes(32)), wire.Inspect(1), wire.Subscribe(0, 0)
    update = wire.Update(1, 1, 0, 0, bytes(32), None, 1 << 50, "", b"\x80", None)
    clean, forget, report = wire.Clean(1, 1, 0, (0,)), ForgetNode(1, "n9"), ReportDead(1, ())
    node, coordinator = cluster.addresses[0], cluster.coordinator_address
    client, peer, admin, operator = wire.ROLE_CLIENT, wire.ROLE_PEER, wire.ROLE_ADMIN, wire.ROLE_OPERATOR
    said: list[tuple[str, str, str, wire.Frame, Any]] = [
        ("client", client, actor, get, wire.Missing | wire.Redirect),
        ("client", client, actor, inspect, None),
        ("client", client, node, subscribe, wire.MapFull),
        ("client", client, node, get, None),
        ("node", peer, actor, get, None),
        ("node", peer, actor, inspect, None),
        ("node", peer, coordinator, subscribe, wire.MapFull),
        ("node", peer, coordinator, forget, Rejected),
        ("coordinator", admin, node, subscribe, wire.MapFull),
        ("operator", operator, actor, get, None),
        ("operator", operator, actor, update, None),
        ("operator", admin, actor, get, None),
        ("operator", admin, actor, inspect, wire.Inspection),
        ("operator", admin, node, subscribe, wire.MapFull),
        ("operator", operator, coordinator, report, None),
        ("observer", admin, actor, clean, None),
        ("observer", admin, actor, inspect, wire.Inspection),
        ("observer", admin, node, subscribe, wire.MapFull),
        ("observer", admin, coordinator, subscribe, wire.MapFull),
        ("observer", admin, coordinator, forget, None),
    ]
    shown = {}
    for kind, role, address, message, expected in said:
        greeting = hello(role, cluster=CLUSTER, target=incarnation if address == actor else b"")
        answer = await asked(address, greeting, message, holders[kind], nursery)
        where = f"{type(message).__name__} of {kind} at {address}"
        assert (answer is None) == (expected is None), where
        assert expected is None or isinstance(answer, expected), where
        if isinstance(answer, wire.MapFull):
            shown[kind, address] = {(each.host, each.pid) for each in answer.map.actors.values()}
    hidden = {where for where, processes in shown.items() if processes == {("", 0)}}
    assert hidden == {("client", node), ("observer", node), ("observer", coordinator)}


async def asked(
    address: str, greeting: wire.Hello, message: wire.Frame, holder: Credentials, nursery: trio.Nursery
) -> Any:
    """Return the answer to a message; None if it ends the connection."""
    trust = Trust(holder, Demand(CLUSTER, ("node", "coordinator")))
    connection, _ = await dial(address, greeting, nursery, trust=trust)
    connection.speak(messages_decoder(wire.ServerMessage | CoordinatorReply))
    try:
        connection.send([message])
        with trio.fail_after(10):
            return (await connection.receive())[0]
    except ConnectionEndedError:
        return None
    finally:
        connection.close()


async def check_pace(cluster: Secured) -> None:
    """Of many looks of an observer few are answered; an operator may look as often as it wants."""
    found = await inspect_cluster(cluster.addresses, CLUSTER, credentials=cluster.operator)
    actor = found.actors[0]
    greeting = hello(wire.ROLE_ADMIN, cluster=CLUSTER, target=bytes.fromhex(actor.incarnation))
    for role, many in (("observer", False), ("operator", True)):
        holder = cluster.credentials(cluster.authority.issue(uri(role, "watch")))
        async with trio.open_nursery() as nursery:
            trust = Trust(holder, Demand(CLUSTER, ("node",)))
            connection, _ = await dial(actor.address, greeting, nursery, trust=trust)
            connection.speak(messages_decoder(wire.ServerMessage))
            connection.send([wire.Inspect(number) for number in range(1, 257)])
            answers: list[object] = []
            with trio.fail_after(20):
                while len(answers) < 256:
                    answers += await connection.receive()
            connection.close()
            nursery.cancel_scope.cancel()
        looks = sum(isinstance(each, wire.Inspection) for each in answers)
        assert (looks == 256) if many else (1 <= looks < 20), looks
        assert {type(each) for each in answers} <= {wire.Inspection, wire.Overloaded}
    watcher = cluster.credentials(cluster.authority.issue(uri("observer", "watch")))
    seen = await inspect_cluster(cluster.addresses, CLUSTER, credentials=watcher)
    assert all(each.reachable for each in seen.actors), "it asks again"


async def check_reports(cluster: Secured) -> None:
    """A node that says of another's actor that it is dead is cut off, and the actor lives."""
    found = await inspect_cluster(cluster.addresses, CLUSTER, credentials=cluster.operator)
    other = next(actor for actor in found.actors if not actor.slot.startswith("n1/"))
    node = cluster.credentials(cluster.authority.issue(uri("node", "n1")))
    trust = Trust(node, Demand(CLUSTER, ("coordinator",)))
    async with trio.open_nursery() as nursery:
        connection, _ = await dial(
            cluster.coordinator_address, hello(wire.ROLE_PEER, cluster=CLUSTER), nursery, trust=trust
        )
        connection.send([ReportDead(1, (bytes.fromhex(other.incarnation),))])
        with trio.fail_after(10), pytest.raises(ConnectionEndedError):
            await connection.receive()
        nursery.cancel_scope.cancel()
    assert "of node n1 speaks for" in str(cluster.coordinator.logged("connection_broke_protocol"))
    assert await cluster.is_healthy()


async def check_commands(cluster: Secured) -> None:
    observer = cluster.options("observer", "grafana")
    command = [sys.executable, "-m", "greenroom_cluster", "health", "--cluster", CLUSTER]
    command += ["--connect", cluster.addresses[0]]
    done = await trio.run_process(
        [*command, *observer], capture_stdout=True, capture_stderr=True, check=False
    )
    assert done.returncode == 0, done.stderr
    done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 3
    assert b"only TLS is spoken here" in done.stderr
    stranger = cluster.options_of(Authority("stranger").issue(uri("observer", "eve")), "eve")
    refused = await trio.run_process([*command, *stranger], capture_stderr=True, check=False)
    assert b"is not trusted: its certificate is not valid" in refused.stderr
    for each in (done, refused):
        assert b"--connect" not in each.stderr, "the address is right"
    done = await trio.run_process([*command, *observer[2:]], capture_stderr=True, check=False)
    assert (done.returncode, b"TLS needs --tls-cert too" in done.stderr) == (2, True)


async def check_failover(cluster: Secured, url: str) -> None:
    """What was acknowledged is there after a node is killed, and the others go on."""
    async with greenroom.store_from_url(url) as store:
        sessions = [new_session() for _ in range(20)]
        for session in sessions:
            await store.create(session)
        cluster.nodes["n2"].process.kill()
        for session in sessions:
            assert (await store.get(session.session_id)).data == session.data


async def check_audit(cluster: Secured, folder: Path) -> None:
    """What an operator commands is told with the name in the certificate, also if it is refused."""
    ann = cluster.options("operator", "ann")
    greenroom_command = [sys.executable, "-m", "greenroom_cluster"]
    at_coordinator = ["--coordinator", cluster.coordinator_address, "--cluster", CLUSTER, *ann]

    async def command(*arguments: str) -> int:
        done = await trio.run_process(
            [*greenroom_command, *arguments], capture_stdout=True, capture_stderr=True, check=False
        )
        return int(done.returncode)

    assert await command("forget-node", "n9", *at_coordinator) == 2
    with trio.fail_after(60):  # n2 was killed, and must have been silent for a while
        while await command("declare-dead", "n2", *at_coordinator):
            pass
    connect = ["--connect", cluster.addresses[0], "--cluster", CLUSTER, *ann]
    assert await command("backup", str(folder / "copy"), *connect) == 0
    told = cluster.coordinator.logged("operator_command")
    assert {line["who"] for line in told} == {"operator/ann", "node/n1"}, "a node may only try"
    done = [(line["who"], line["command"], line["name"]) for line in told if line["outcome"] == "done"]
    assert done == [("operator/ann", "declare-dead", "n2")]
    assert any(line["command"] == "forget-node" and "n9" in line["outcome"] for line in told)
    copies = [line for name in NODES for line in cluster.nodes[name].logged("operator_command")]
    done = [line for line in copies if line["outcome"] == "done"]
    # Of several in one actor, the first has a line of its own, and the others have one together.
    assert sum(line.get("count", 1) for line in done) == 4
    assert {(line["who"], line["command"]) for line in copies} == {("operator/ann", "copy-shard")}


async def check_ending_without_a_namespace(command: list[str], options: list[str]) -> None:
    """An operator who names no namespace is told that there are others, and ends nothing by mistake."""
    shown = await trio.run_process([*command, "user", *options], capture_stdout=True)
    first, second = shown.stdout.decode().splitlines()
    assert first == "user alice@shop has 0 sessions in namespace default"
    assert second == "that is namespace default; --namespace names another: other, web"
    told = await trio.run_process([*command, "user", *options, "--json"], capture_stdout=True)
    assert msgspec.json.decode(told.stdout)["other_namespaces"] == ["other", "web"]
    for ending in (["end-sessions", *options], ["user", *options, "--end-all"]):
        refused = await trio.run_process([*command, *ending], capture_stderr=True, check=False)
        assert (refused.returncode, b"--namespace" in refused.stderr) == (2, True), refused.stderr


async def check_ending(cluster: Secured) -> None:
    """An operator ends the sessions of a user in one namespace, which is told without the user."""
    other = cluster.url(cluster.authority.issue(uri("client", "other")))
    ann = cluster.options("operator", "ann")
    now = dt.datetime.now(dt.UTC)
    session = SessionData(
        session_id=new_session_id(), user_id="alice@shop", expires=now + dt.timedelta(hours=1)
    )
    greenroom_command = [sys.executable, "-m", "greenroom_cluster"]
    at = ["alice@shop", "--connect", cluster.addresses[0], "--cluster", CLUSTER]
    command = [*greenroom_command, "end-sessions", *at]
    listing = [*greenroom_command, "user", *at, "--json"]
    async with (
        greenroom.store_from_url(cluster.url(cluster.client)) as web,
        greenroom.store_from_url(other) as beside,
    ):
        for store in (web, beside):
            await store.create(session)
        for name, store in (("web", web), ("other", beside), ("default", None)):
            told = await trio.run_process([*listing, "--namespace", name, *ann], capture_stdout=True)
            listed = [each["handle"] for each in msgspec.json.decode(told.stdout)["sessions"]]
            owned = [] if store is None else await store.list_by_user("alice@shop")
            assert listed == [each.handle for each in owned]
        await check_ending_without_a_namespace([*greenroom_command], [*at, *ann])
        assert await web.get(session.session_id) is not None
        done = await trio.run_process([*command, "--namespace", "web", *ann], capture_stdout=True)
        assert done.stdout == b"sessions ended in namespace web: 1\n"
        assert await web.get(session.session_id) is None
        assert await beside.get(session.session_id) is not None
        observer = cluster.options("observer", "grafana")
        refused = await trio.run_process(
            [*command, "--namespace", "other", *observer], capture_stderr=True, check=False
        )
        assert (refused.returncode, b"needs that of an operator" in refused.stderr) == (2, True)
        # Who asks in another way is refused by the actors.
        looking = cluster.credentials(cluster.authority.issue(uri("observer", "grafana")))
        with pytest.raises(UnavailableError, match="not-allowed"):
            await end_sessions_at(cluster.addresses, CLUSTER, "alice@shop", "other", 3, credentials=looking)
        assert await beside.get(session.session_id) is not None
    lines = [line for name in NODES for line in cluster.nodes[name].logged("operator_command")]
    told = {(line["command"], line["who"], line.get("namespace"), line["outcome"]) for line in lines}
    assert {each for each in told if "sessions" in each[0]} == {
        ("end-sessions", "operator/ann", "web", "done"),
        *(("list-sessions", "operator/ann", name, "done") for name in ("web", "other", "default")),
    }
    assert "alice" not in str(lines)


async def test_tls_store_at_a_plaintext_port_is_told_so(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        here = Host(nursery, tmp_path)
        await here.start_coordinator()
        node = await here.start_node("a")
        address = (await node.until_logged("node_started"))["address"]
        files = Authority().issue(uri("client", "web")).files(tmp_path)
        store = ClusterStore(
            address,
            cluster=CLUSTER,
            deadline_seconds=2.0,
            tls_cert=files.cert,
            tls_key=files.key,
            tls_ca=files.ca,
        )
        with pytest.raises(UnavailableError, match="TLS"):
            await store.check()
        assert "speaks TLS, and this one does not" in str(node.logged("connection_broke_protocol"))
        await store.aclose()
        nursery.cancel_scope.cancel()
