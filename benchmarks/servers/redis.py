"""Redis from the distribution's packages: alone, with replicas, with Sentinel, with a proxy in between."""

import shutil
import socket
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.processes import MissingError, Process, Server, json_line, occupied_bytes, python_module
from benchmarks.servers.certificates import Authority, Files
from benchmarks.servers.ports import until, until_listening
from benchmarks.servers.redis_names import SENTINEL_NAME

CLIENT_HOST = "127.0.0.1"
PROXY_HOST = "127.0.0.2"
DOWN_AFTER_MILLISECONDS = 1000
"""Sentinel's patience: the shortest that does not take a busy machine for a dead one."""
_FAILOVER_MILLISECONDS = 3000
_SENTINELS_AGREEING = 2

# Nothing is written to disk, no replica is dropped for being slow, and a resync begins at once.
_OPTIONS = """
bind 127.0.0.1
protected-mode no
daemonize no
save ""
appendonly no
repl-diskless-sync yes
repl-diskless-sync-delay 0
repl-diskless-load on-empty-db
client-output-buffer-limit replica 0 0 0
loglevel warning
"""


class RedisServer(Server):
    """A master (the first), replicas and sentinels.

    `apart` puts a proxy between all of them, but not between them and clients: server `index` and sentinel
    `index` then reach the others from addresses of their own (`source_of`), so that links can be told apart.
    `strict`: a master that has heard of no replica for a second takes no writes. `durable`: every server
    syncs its append-only file before it answers. `tls`: clients and replicas speak mutual TLS, on ports of
    their own; `ports` are for questions. What is kept is below `directory`, or where temporary files are.
    """

    def __init__(
        self,
        replicas: int = 0,
        sentinels: int = 0,
        *,
        apart: bool = False,
        strict: bool = False,
        durable: bool = False,
        tls: bool = False,
        directory: Path | None = None,
    ) -> None:
        super().__init__()
        self._tls = tls
        self._durable = durable
        self._parent = directory
        self._strict = strict
        self._replicas = replicas
        self._sentinels = sentinels
        self._apart = apart
        self._servers: list[Process] = []
        self._watchers: list[Process] = []
        self.ports: list[int] = []

    def start(self) -> None:
        """Start all and wait until the replicas are in step and the sentinels know them."""
        self._program = _program("redis-server", "redis-server")
        if self._sentinels:
            _program("redis-sentinel", "redis-sentinel")
        self._directory = Path(
            self.stack.enter_context(tempfile.TemporaryDirectory(prefix="greenroom-redis-", dir=self._parent))
        )
        servers = self._replicas + 1
        count = servers + self._sentinels + servers * self._tls
        every = [self.port() for _ in range(count)]
        self.ports, every = every[:servers], every[servers:]
        self._sentinel_ports, self._tls_ports = every[: self._sentinels], every[self._sentinels :]
        if self._tls:
            authority = Authority(self._directory / "certificates", "redis")
            # A replica is a client of its master too.
            self._files, files = authority.issue("node", "server"), authority.issue("client", "web")
            self.addresses["redis"] = _url(self._tls_ports[0], files)
        if self._apart:
            self._start_proxy(self.ports)
        for index in range(self._replicas + 1):
            self._servers.append(self._start_server(index))
        self.until_replicated(self._replicas)
        for index in range(self._sentinels):
            self._watchers.append(self._start_sentinel(index))
        for port in self._sentinel_ports:
            until(partial(self._is_complete, port), "every sentinel knows every server")
        self.addresses.setdefault("redis", f"{CLIENT_HOST}:{self.ports[0]}")
        self.addresses["sentinels"] = ",".join(f"{CLIENT_HOST}:{port}" for port in self._sentinel_ports)
        version = subprocess.run([self._program, "--version"], capture_output=True, text=True, check=True)
        self.versions["redis-server"] = version.stdout.split("v=")[1].split()[0]

    def processes(self) -> list[Process]:
        """Return the servers and sentinels."""
        return [*self._servers, *self._watchers]

    # --- for failures ------------------------------------------------------------------------------------

    @staticmethod
    def source_of(index: int) -> str:
        """Return the address from which a server reaches the others, if they are apart."""
        return f"127.0.0.{11 + index}"

    @staticmethod
    def source_of_sentinel(index: int) -> str:
        """Return the address from which a sentinel reaches the servers, if they are apart."""
        return f"127.0.0.{31 + index}"

    def kill(self, index: int) -> None:
        """SIGKILL a server."""
        self._servers[index].kill_tree()

    def restart(self, index: int) -> None:
        """Start a server again that was killed: empty, unless durable. A replica joins again."""
        self._servers[index] = self._start_server(index)

    def cut_off_master(self, *, from_sentinels: bool) -> None:
        """Silence all links between the first server and its replicas, and the sentinels if told to."""
        others = range(1, self._replicas + 1)
        cut = [f"{self.ports[0]}/{self.source_of(index)}" for index in others]
        cut += [f"{self.ports[index]}/{self.source_of(0)}" for index in others]
        if from_sentinels:
            cut += [f"{self.ports[0]}/{self.source_of_sentinel(index)}" for index in range(self._sentinels)]
        self._cut(cut)

    def heal(self) -> None:
        """Let everything through again."""
        self._cut([])

    def _cut(self, labels: list[str]) -> None:
        self._proxy.ask(json_line({"cut": labels}))
        self._proxy.answer()

    # --- what they say -----------------------------------------------------------------------------------

    def until_replicated(self, replicas: int, seconds: float = 600.0) -> None:
        """Wait until the master has so many replicas in step."""
        until(lambda: self.replicas_in_step() >= replicas, "the replicas are in step", seconds)

    def replicas_in_step(self) -> int:
        """Return how many replicas have all of the master's keys and follow it."""
        return _ask(self.ports[0], "INFO", "replication").count("state=online")

    def serves(self, index: int) -> bool:
        """Whether a server has read what it keeps, and answers."""
        return _ask(self.ports[index], "PING").startswith("+PONG")

    def disk_bytes(self, index: int) -> int:
        """Return what a server's files occupy on disk."""
        return occupied_bytes(self._directory / f"server{index}")

    def has_loaded(self, index: int) -> bool:
        """Whether a replica has taken in all that the master had, by its own word.

        To the master it is online once everything was sent.
        """
        said = _ask(self.ports[index], "INFO")
        return "master_link_status:up" in said and "\nloading:0" in said

    def is_settled(self) -> bool:
        """Whether exactly one of the servers that answer takes itself for the master."""
        return sum("role:master" in _ask(port, "INFO", "replication") for port in self.ports) == 1

    def stored(self) -> int:
        """Return how many keys the master has."""
        return int(_ask(self.ports[0], "DBSIZE").strip().removeprefix(":"))

    def _is_complete(self, sentinel_port: int) -> bool:
        said = _ask(sentinel_port, "INFO", "sentinel")
        return f"slaves={self._replicas},sentinels={self._sentinels}" in said

    # --- processes ---------------------------------------------------------------------------------------

    def _start_proxy(self, ports: list[int]) -> None:
        self._proxy = self.run(python_module("benchmarks.servers.proxy"), obeys=True)
        routes = {"listen_host": PROXY_HOST, "target_host": CLIENT_HOST, "ports": ports, "by_hello": False}
        self._proxy.ask(json_line(routes))
        self._proxy.answer()

    @property
    def _peer_host(self) -> str:
        return PROXY_HOST if self._apart else CLIENT_HOST

    def _start_server(self, index: int) -> Process:
        directory = self._directory / f"server{index}"
        directory.mkdir(exist_ok=True)
        lines = [_OPTIONS, f"port {self.ports[index]}", f"dir {directory}"]
        if self._durable:
            lines += ["appendonly yes", "appendfsync always"]
        if self._strict:
            lines += ["min-replicas-to-write 1", "min-replicas-max-lag 1"]
        if self._tls:
            lines += [f"tls-port {self._tls_ports[index]}", "tls-replication yes", "tls-auth-clients yes"]
            lines += [f"tls-cert-file {self._files.cert}", f"tls-key-file {self._files.key}"]
            lines += [f"tls-ca-cert-file {self._files.ca}", "tls-protocols TLSv1.3"]
        if index:
            master = self._tls_ports[0] if self._tls else self.ports[0]
            lines.append(f"replicaof {self._peer_host} {master}")
        if self._apart:
            lines += [f"bind-source-addr {self.source_of(index)}", f"replica-announce-ip {PROXY_HOST}"]
        process = self._run(f"server{index}.conf", lines)
        until_listening(CLIENT_HOST, self.ports[index], process)
        return process

    def _start_sentinel(self, index: int) -> Process:
        lines = [
            "bind 127.0.0.1",
            "protected-mode no",
            f"port {self._sentinel_ports[index]}",
            f"dir {self._directory}",
            f"sentinel monitor {SENTINEL_NAME} {self._peer_host} {self.ports[0]} {_SENTINELS_AGREEING}",
            f"sentinel down-after-milliseconds {SENTINEL_NAME} {DOWN_AFTER_MILLISECONDS}",
            f"sentinel failover-timeout {SENTINEL_NAME} {_FAILOVER_MILLISECONDS}",
        ]
        if self._apart:
            lines.append(f"bind-source-addr {self.source_of_sentinel(index)}")
            lines.append(f"sentinel announce-ip {CLIENT_HOST}")
        process = self._run(f"sentinel{index}.conf", lines, "--sentinel")
        until_listening(CLIENT_HOST, self._sentinel_ports[index], process)
        return process

    def _run(self, file_name: str, lines: list[str], *more: str) -> Process:
        file = self._directory / file_name
        file.write_text("\n".join(lines) + "\n")
        return self.run([self._program, str(file), *more], cwd=self._directory)


def _url(port: int, files: Files) -> str:
    options = f"ssl_certfile={files.cert}&ssl_keyfile={files.key}&ssl_ca_certs={files.ca}"
    return f"rediss://{CLIENT_HOST}:{port}?{options}"


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"{name} is not installed: apt-get install {package}")
    return found


def _ask(port: int, *words: str) -> str:
    """Send one command to a server or sentinel and return its raw answer, empty if it is not there."""
    command = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    try:
        with socket.create_connection((CLIENT_HOST, port), 5.0) as connection:
            connection.sendall(command.encode())
            connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65_536):
                parts.append(part)
    except OSError:
        return ""
    return b"".join(parts).decode()
