"""Apps and observers with tokens, on a cluster of real processes that speaks TLS."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

import greenroom
from greenroom import GreenroomError, SessionNotFoundError, UsageError
from greenroom.identities import parse_identity
from greenroom.rereading import ignore
from greenroom.tls.credentials import BearerCredentials, BearerFiles
from greenroom.tokens import Token, new_token
from greenroom_cluster.backups.taking import take_backup
from greenroom_cluster.orders import forget_node_at
from greenroom_cluster.tokens.entries import line_of
from greenroom_cluster.tokens.files import write_text
from greenroom_cluster.tokens.table import Bearer
from tests.system.test_mistakes import CLUSTER
from tests.system.test_secrets import seen
from tests.system.test_tls import NODES, Secured, exchange, new_session, refused, secured, uri

pytestmark = [pytest.mark.system, pytest.mark.trio]

SECRETS = iter(range(1, 256))


class Tokens:
    """The file of tokens of a cluster, and those of its apps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "tokens"
        self.bearers: dict[str, Bearer] = {}
        self.secrets: list[str] = []
        self.write()

    def issue(self, token_id: str, identity: str, seconds: float = 3600.0) -> Token:
        fill = bytes([next(SECRETS)])
        token = new_token(token_id, lambda count: fill * count)
        self.bearers[token_id] = Bearer(
            token_id, token.digest, parse_identity(identity), time.time() + seconds
        )
        self.secrets.append(token.written().decode().rpartition(".")[2].strip())
        self.write()
        return token

    def write(self) -> None:
        write_text(self.path, "".join(f"{line_of(each)}\n" for each in self.bearers.values()))

    def file_of(self, token: Token, name: str) -> Path:
        """Give an app this token, instead of the one that it had."""
        path = self.folder / f"{name}.token"
        beside = path.with_suffix(".next")
        beside.touch(0o600)
        beside.write_bytes(token.written())
        beside.rename(path)
        return path

    def url(self, cluster: Secured, path: Path) -> str:
        ca = self.folder / "tokens-ca.pem"
        ca.write_bytes(cluster.authority.pem)
        nodes = ",".join(cluster.addresses)
        return f"greenrooms://{nodes}/{CLUSTER}?token_file={path}&tls_ca={ca}&deadline_seconds=10"


async def test_tokens_do_what_certificates_of_their_holders_do(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    web = tokens.issue("web-1", uri("client", "web?ns=shop"))
    grafana = tokens.issue("grafana-1", uri("observer", "grafana"))
    async with secured(tmp_path, "--tokens", str(tokens.path)) as cluster:
        url = tokens.url(cluster, tokens.file_of(web, "web"))
        assert await exchange(url)
        assert await trio.to_thread.run_sync(asyncio.run, exchange(url))
        await check_namespace(cluster, url)
        await check_commands(cluster, tokens, grafana, web)
        await check_refusals(cluster, tokens, grafana)
        await check_nobody_shows(cluster, tokens)


async def check_namespace(cluster: Secured, url: str) -> None:
    """The holder of a token has the namespace in its entry, and shares it with certificates for the same."""
    certified = {
        name: greenroom.store_from_url(cluster.url(cluster.authority.issue(uri("client", name))))
        for name in ("shop", "web")
    }
    async with greenroom.store_from_url(url) as store, certified["shop"] as shop, certified["web"] as other:
        session = new_session()
        session.user_id = "alice"
        await store.create(session)
        assert (await shop.get(session.session_id)).data == session.data
        assert await other.get(session.session_id) is None
        with pytest.raises(SessionNotFoundError):
            await other.rotate(session.session_id)
        assert await shop.delete_by_user("alice") == 1


async def check_commands(cluster: Secured, tokens: Tokens, observer: Token, client: Token) -> None:
    """An observer with a token looks; nobody changes anything by one."""

    async def command(*arguments: str, token: Token = observer) -> tuple[int, str]:
        access = ["--token-file", str(tokens.file_of(token, "command")), "--cluster", CLUSTER]
        access += ["--tls-ca", str(tokens.folder / "tokens-ca.pem")]
        done = await trio.run_process(
            [sys.executable, "-m", "greenroom_cluster", *arguments, *access],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    node = ("--connect", cluster.addresses[0])
    assert (await command("health", *node))[0] == 0
    assert (await command("status", *node, "--json"))[0] == 0
    at = ("--coordinator", cluster.coordinator_address)
    for each in (("backup", str(tokens.folder / "copy"), *node), ("forget-node", "n3", *at)):
        status, said = await command(*each)
        assert (status, "no token is for this" in said) == (2, True), said
    # Who asks in another way is refused by the servers: by every node, the first actor, the coordinator.
    for token, copies in ((client, "not-allowed"), (observer, "lets only an operator copy")):
        files = BearerFiles(
            token=str(tokens.file_of(token, "command")), ca=str(tokens.folder / "tokens-ca.pem"), flags=True
        )
        bearer = BearerCredentials(files, ignore)
        with pytest.raises(GreenroomError, match=copies):
            await take_backup(cluster.addresses, CLUSTER, tokens.folder / "copy", credentials=bearer)
        with pytest.raises(GreenroomError, match="must answer here"):
            await forget_node_at(cluster.coordinator_address, CLUSTER, "n3", credentials=bearer)
    status, said = await command("health", *node, token=client)
    assert (status, "not-allowed" in said) == (3, True), said
    status, said = await command("health", *node, "--tls-cert", "app.pem")
    assert (status, "--token-file is instead of a certificate" in said) == (2, True)
    assert await cluster.is_healthy()


async def check_refusals(cluster: Secured, tokens: Tokens, observer: Token) -> None:
    """Apps are told alike, and the log of the node says why, with the id of the token."""
    guessed = new_token("web-1", lambda count: b"?" * count)
    unknown = new_token("nobody", lambda count: b"?" * count)
    told = {"secret of its token web-1 is wrong": guessed, "its token nobody is unknown": unknown}
    told["the token grafana-1 of greenroom://shop/observer/grafana does not allow"] = observer
    said = set()
    for token in told.values():
        tokens.secrets.append(token.written().decode().rpartition(".")[2].strip())
        why = await refused(tokens.url(cluster, tokens.file_of(token, "stranger")))
        assert "without a certificate or token that they trust" in why
        assert "token_file" in why
        said.add("not-allowed" in why)
    assert said == {True}
    logged = [detail for name in NODES for detail in cluster.refusals(name)]
    for reason in told:
        assert any(reason in detail for detail in logged), reason
    with pytest.raises(UsageError, match=r"greenroom:// URL has no option 'token_file'.*greenrooms://"):
        greenroom.store_from_url(f"greenroom://{cluster.addresses[0]}/{CLUSTER}?token_file=app.token")


async def check_nobody_shows(cluster: Secured, tokens: Tokens) -> None:
    """No log, argument or variable of a process holds a secret, nor the digest of one."""
    commands = (cluster.coordinator, *cluster.nodes.values())
    for command in commands:
        shown = seen(command.process.pid).decode(errors="replace") + str(command.lines) + str(command.events)
        assert not [secret for secret in tokens.secrets if secret in shown]


async def test_token_is_replaced_and_revoked_without_an_error(tmp_path: Path) -> None:
    """The app goes on under its new token; who has kept the old one is cut off, and let in no more."""
    tokens = Tokens(tmp_path)
    first = tokens.issue("web-1", uri("client", "web"))
    async with secured(tmp_path, "--tokens", str(tokens.path)) as cluster:
        app = tokens.file_of(first, "web")
        thief = tokens.file_of(first, "thief")
        async with (
            greenroom.store_from_url(tokens.url(cluster, app)) as store,
            greenroom.store_from_url(tokens.url(cluster, thief)) as stolen,
            trio.open_nursery() as nursery,
        ):
            session = new_session()
            await store.create(session)
            assert await stolen.get(session.session_id) is not None
            writes = 0

            async def write_on() -> None:
                nonlocal writes
                while True:
                    await store.patch(session.session_id, set={"count": writes})
                    writes += 1

            nursery.start_soon(write_on)
            tokens.file_of(tokens.issue("web-2", uri("client", "web")), "web")
            # Each node and its actor know the new token, before the old one is revoked.
            await until_read(cluster, tokens=2)
            tokens.bearers["web-1"] = replace(tokens.bearers["web-1"], revoked=True)
            tokens.bearers["more"] = replace(tokens.bearers["web-2"], token_id="more")
            tokens.write()
            for command in cluster.nodes.values():
                command.process.send_signal(signal.SIGHUP)
            await until_read(cluster, tokens=3)
            with trio.fail_after(30):
                while True:
                    try:
                        await stolen.get(session.session_id)
                    except UsageError as error:
                        assert "not-allowed" in str(error)  # noqa: PT017  when it is refused is the point
                        break
            before = writes
            with trio.fail_after(30):
                while writes < before + 20:
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert await exchange(tokens.url(cluster, app))
        cut = [detail for name in NODES for detail in cluster.refusals(name)]
        assert any("greenroom://shop/client/web: its token web-1 is revoked" in each for each in cut)


async def until_read(cluster: Secured, tokens: int) -> None:
    """Wait until all processes of all nodes have read the file with so many tokens."""
    with trio.fail_after(60):
        for command in cluster.nodes.values():
            while [line["tokens"] for line in command.logged("tokens_read")].count(tokens) < 2:
                await trio.lowlevel.checkpoint()
