"""The command line as users meet it: a process with arguments, variables, output and an exit code."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
import typer.main

from greenroom_cluster.cli.commands import app
from greenroom_cluster.config import NodeOptions, ProcessOptions
from greenroom_cluster.local_settings import LocalClusterSettings
from greenroom_cluster.logs import LogSettings
from greenroom_cluster.runtime.local import open_local_cluster
from greenroom_cluster.runtime.ports import free_port
from greenroom_cluster.runtime.processes import catches, descendants_of

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-m", "greenroom_cluster"]


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **variables},
    )


def assert_one_line(result: subprocess.CompletedProcess[str], status: int, *parts: str) -> None:
    """The error is one line on stderr that holds all parts."""
    assert result.returncode == status, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("greenroom: ")
    for part in parts:
        assert part in lines[0]


def test_every_option_is_a_variable_too() -> None:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden and parameter.name != "help":
                assert parameter.envvar, f"{name} {parameter.opts}"
                assert parameter.envvar.startswith("GREENROOM_")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["node", "--name", "n1", "--listen", "nowhere"], "--listen"),
        (["node", "--name", "n1", "--listen", "0.0.0.0:0"], "--advertise"),
        (["node", "--name", "n1", "--coordinator", "here:there"], "--coordinator"),
        (["node", "--name", "no/slash"], "--name"),
        (["node", "--name", "-x"], "the first a letter or digit"),
        (["coordinator", "--cluster", ".x"], "the first a letter or digit"),
        (["node", "--name", "n1", "--actors", "0"], "--actors"),
        (["node", "--name", "n1", "--listen", "nosuch.invalid:7400"], "--listen"),
        (["node", "--name", "n1", "--listen", "two..dots:7400"], "--listen"),
        (["node", "--name", "n1", "--restarts-max", "-1"], "--restarts-max"),
        (["node", "--name", "n1", "--restarts-max", "10001"], "--restarts-max must be 0 to 10000"),
        (["up", "--restarts-max", "9" * 30], "--restarts-max must be 0 to 10000"),
        (["node", "--name", "n1", "--hang-seconds", "-1"], "--hang-seconds"),
        (["up", "--hang-seconds", "1e300"], "--hang-seconds must be 1 to 86400"),
        (["up", "--drain-seconds", "inf"], "--drain-seconds must be 0 to 86400"),
        (["up", "--recover-alone-after", "1e10"], "--recover-alone-after must be 10 to 1000000000"),
        (["node", "--name", "n1", "--drain-seconds", "nan"], "--drain-seconds"),
        (["coordinator", "--hang-seconds", "0.5"], "--hang-seconds"),
        (["coordinator", "--listen", "127.0.0.1:x"], "--listen"),
        (["coordinator", "--shards", "3"], "--shards"),
        (["coordinator", "--cluster", "not valid"], "--cluster"),
        (["coordinator", "--new-lineage"], "--adopt-from"),
        (["coordinator", "--new-lineage", "--adopt-from", "nowhere"], "--adopt-from"),
        (["coordinator", "--new-lineage", "--adopt-from", "127.0.0.1:1"], "--adopt-from"),
        (["coordinator", "--new-lineage", "--adopt-from", "h:1", "--give-up-newer"], "--give-up-newer"),
        (["coordinator", "--give-up-newer"], "--new-lineage"),
        (["coordinator", "--adopt-from-directories"], "--new-lineage"),
        (["coordinator", "--new-lineage", "--adopt-from", "h:1", "--adopt-from-directories"], "--adopt-from"),
        (["up", "--nodes", "1"], "--nodes 2 or more, or --replicas 1"),
        (["up", "--drain-seconds", "-5"], "--drain-seconds"),
        (["up", "--hang-seconds", "0"], "--hang-seconds"),
        (["up", "--listen", "127.0.0.1:0", "--coordinator-listen", "192.0.2.1:0"], "--coordinator-listen"),
        (["coordinator", "--listen", "0.0.0.0:0"], "--insecure-plaintext-beyond-loopback"),
        (["node", "--name", "n1", "--listen", "[::]:0", "--advertise", "127.0.0.1:0"], "--tls-cert"),
        (["node", "--name", "n1", "--listen", "127.0.0.1:0", "--advertise", "192.0.2.1:0"], "--tls-cert"),
        (["up", "--listen", "127.0.0.1:0", "--coordinator-listen", "0.0.0.0:0"], "one address of this host"),
        (["up", "--listen", "0.0.0.0:0", "--tls"], "one address of this host"),
        (["up", "--listen", "127.0.0.1:7400", "--http", "127.0.0.1:7402"], "--http 127.0.0.1:7402 takes"),
        (["status", "--connect", "127.0.0.1"], "--connect"),
        (["forget-node", "n1", "--coordinator", "x"], "--coordinator"),
    ],
)
def test_impossible_value_names_its_option(arguments: list[str], option: str) -> None:
    assert_one_line(run(*arguments), 2, option)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["node", "--name", "n1", "--linger-seconds", "0"], "leave it out"),
        (["up", "--restart-window=60"], "--restarts-max"),
    ],
)
def test_a_removed_option_says_what_to_do(arguments: list[str], advice: str) -> None:
    option = arguments[-1] if "=" in arguments[-1] else arguments[-2]
    assert_one_line(run(*arguments), 2, option.partition("=")[0], advice)


def test_a_removed_variable_is_told_and_stops_nothing() -> None:
    result = run("node", GREENROOM_NAME="n1", GREENROOM_LISTEN="nowhere", GREENROOM_LINGER_SECONDS="0")
    told, refused = result.stderr.splitlines()
    assert told.startswith("greenroom: GREENROOM_LINGER_SECONDS has no effect")
    assert "'nowhere'" in refused


@pytest.mark.trio
async def test_a_web_server_at_the_address_is_told_in_one_sentence() -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        result = await run_async("status", "--connect", f"127.0.0.1:{port}")
        nursery.cancel_scope.cancel()
    assert result.returncode == 3
    assert b"greenroom protocol. Does --connect" in result.stderr


@pytest.mark.parametrize("arguments", [["node", "--name", "n1", "--evict", "users"], ["up", "--evict", ""]])
def test_what_is_none_of_an_options_choices_is_refused_with_them(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    for part in ("--evict", "none", "anonymous"):
        assert part in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drop-record", "x"], "'shard': not a whole number."),
        (["up", "--nodes", "two"], ": not a whole number."),
        (["up", "--hang-seconds", "long"], ": not a number."),
        (["node", "--name", "n1", "--log-level", "all"], ": 'all' is not one of"),
    ],
)
def test_a_malformed_value_is_told_in_plain_words(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert not re.search("Value error|Input should|pars", result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--watch"],
        ["top"],
        ["health"],
        ["drop-record", "5"],
        ["user", "ann", "--namespace", "default"],
    ],
)
def test_no_node_that_answers_has_an_exit_code_of_its_own(arguments: list[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert_one_line(run(*arguments, "--connect", address), 3, address, "--connect")


def test_variables_stand_for_options() -> None:
    assert_one_line(run("node", GREENROOM_NAME="n1", GREENROOM_LISTEN="nowhere"), 2, "--listen", "'nowhere'")


@pytest.mark.parametrize("command", ["node", "coordinator"])
def test_port_in_use_names_the_option(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(
            command, "--listen", address, GREENROOM_NAME="n1", GREENROOM_DATA_DIR=str(tmp_path / "data")
        )
    assert_one_line(result, 2, address, "--listen")


ACTOR_PORTS = ("--actor-port-base", "GREENROOM_ACTOR_PORT_BASE")


@pytest.mark.parametrize("index", [0, 1])
def test_node_needs_a_port_of_its_own_beside_its_actors(index: int) -> None:
    base = free_port()
    address = f"127.0.0.1:{base + index}"
    result = run("node", "--name", "n1", "--actor-port-base", str(base), "--listen", address)
    assert_one_line(result, 2, *ACTOR_PORTS, f"{base} to {base + 1}", str(base + index))


def test_taken_port_of_an_actor_is_told_before_the_node_starts() -> None:
    """It logs nothing before that: no coordinator has heard of it."""
    # Below the ports of outgoing connections: none of those can take the other one meanwhile.
    port = free_port() + 1
    with socket.create_server(("127.0.0.1", port)):
        result = run("node", "--name", "n1", "--actor-port-base", str(port - 1), "--listen", "127.0.0.1:0")
    assert_one_line(result, 2, *ACTOR_PORTS, f"127.0.0.1:{port}")


@pytest.mark.parametrize("below", [False, True])
def test_file_is_no_directory_of_a_coordinator(below: bool, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    directory = file / "data" if below else file
    address = f"127.0.0.1:{free_port()}"
    result = run("coordinator", "--listen", address, "--data-dir", str(directory))
    assert_one_line(result, 2, str(directory), "is a file and not a directory", "--data-dir")


@pytest.mark.parametrize("command", ["status", "health"])
def test_unreachable_cluster_is_an_exit_code_of_its_own(command: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert_one_line(run(command, "--connect", address), 3, address, "--connect")


@pytest.mark.parametrize("command", ["status", "health"])
def test_unreachable_cluster_is_json_too(command: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    result = run(command, "--json", "--connect", address)
    assert result.returncode == 3
    document = msgspec.json.decode(result.stdout)
    assert document["healthy"] is False
    assert address in document["error"]


def test_help_cuts_nothing_off_where_there_is_little_room() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    overview = run("-h", COLUMNS="80").stdout
    for name, command in commands.items():
        assert f"  {name} " in overview
        text = run(name, "--help", COLUMNS="80").stdout
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden and parameter.name != "help":
                assert parameter.opts[0] in text
                assert parameter.envvar in text
    assert "..." not in overview.partition("Commands:")[2]


def test_version_is_told() -> None:
    import greenroom

    assert run("--version").stdout == f"greenroom {greenroom.__version__}\n"


def test_nodes_and_coordinator_can_share_their_environment(tmp_path: Path) -> None:
    """One file of variables for a host that runs both; what each listens on has a name of its own."""
    variables = {"GREENROOM_LISTEN": "node", "GREENROOM_COORDINATOR_LISTEN": "coordinator"}
    assert_one_line(run("node", GREENROOM_NAME="n1", **variables), 2, "'node'")
    assert_one_line(run("coordinator", GREENROOM_DATA_DIR=str(tmp_path), **variables), 2, "'coordinator'")


# --- greenroom up: ports, and signals at any time ---------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1])
def test_up_finds_a_taken_port_before_it_starts_anything(taken: int) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port + taken)):
        result = run("up", "--listen", f"127.0.0.1:{port}", "--nodes", "2")
    assert_one_line(result, 2, f"127.0.0.1:{port + taken}", "--listen")


def test_up_refuses_one_port_for_two() -> None:
    result = run("up", "--listen", "127.0.0.1:17600", "--coordinator-listen", "127.0.0.1:17601")
    assert_one_line(result, 2, "--coordinator-listen", "n2")


def begun(pid: int) -> bool:
    """Whether the command has begun, as far as Python lets it."""
    return catches(pid, signal.SIGTERM)


@pytest.mark.trio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [0, 1, 3, 5])
async def test_signal_while_up_starts_ends_it_quietly(processes: int, number: signal.Signals) -> None:
    """Before anything was started, or as soon as so many processes of the cluster run."""
    command = [*COMMAND, "up", "--listen", "127.0.0.1:0", "--nodes", "2", "--actors", "1"]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, capture_stdout=True, stderr=subprocess.PIPE, check=False)
        )
        with trio.fail_after(60):
            while not begun(process.pid) or len(descendants_of(process.pid)) < processes:
                await trio.lowlevel.checkpoint()
        process.send_signal(number)
        told = b""
        with trio.fail_after(30):
            async for chunk in process.stderr:
                told += chunk
            status = await process.wait()
    assert status in {0, 128 + number}
    lines = told.decode().splitlines()
    assert [line for line in lines if not line.startswith("greenroom: ")] == []


@pytest.mark.trio
async def test_up_says_that_kept_sessions_come_back_before_the_log_alarms(tmp_path: Path) -> None:
    size = ["--nodes", "1", "--actors", "1", "--replicas", "1", "--shards", "1"]
    for start in range(2):
        process = await trio.lowlevel.open_process(
            [*COMMAND, "up", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path), *size],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        with trio.fail_after(60):
            await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            told = b"".join([chunk async for chunk in process.stderr]).decode()
            assert await process.wait() == 0
        if start == 0:
            assert "They come back" not in told
        else:
            announced = told.index(
                "sessions kept by the last run: 0. They come back once every shard is there"
            )
            assert announced < told.index("were started empty")


@pytest.mark.trio
@pytest.mark.parametrize("kept", [False, True])
async def test_up_says_at_its_end_what_becomes_of_the_data(kept: bool, tmp_path: Path) -> None:
    options = ["--listen", "127.0.0.1:0", "--nodes", "1", "--actors", "1", "--replicas", "1", "--shards", "1"]
    if kept:
        options += ["--data-dir", str(tmp_path)]
    process = await trio.lowlevel.open_process(
        [*COMMAND, "up", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(60):
        await process.stdout.receive_some()
        process.send_signal(signal.SIGINT)
        told = b""
        async for chunk in process.stderr:
            if b"stopping" in chunk and b"stopping" not in told:
                process.send_signal(signal.SIGINT)  # a terminal and `uv run` both bring the same Ctrl-C
            told += chunk
        assert await process.wait() == 0
    lines = told.decode().splitlines()
    assert lines[-1] == "greenroom: stopped"
    if kept:
        assert lines[-2] == "greenroom: sessions kept for the next start: 0"
        assert (tmp_path / "sessions.backup").exists()
    else:
        assert lines[-2].startswith("greenroom: stopping. All sessions end")
        assert "--data-dir keeps them" in lines[-2]


@pytest.mark.trio
async def test_up_fails_at_its_end_if_it_cannot_keep_the_sessions(tmp_path: Path) -> None:
    options = ["--listen", "127.0.0.1:0", "--nodes", "1", "--actors", "1", "--replicas", "1", "--shards", "1"]
    process = await trio.lowlevel.open_process(
        [*COMMAND, "up", *options, "--data-dir", str(tmp_path / "d")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(60):
        await process.stdout.receive_some()
        # As root, a test cannot have a directory that it may not write to.
        shutil.rmtree(tmp_path / "d")
        process.send_signal(signal.SIGINT)
        told = b"".join([chunk async for chunk in process.stderr]).decode()
        assert await process.wait() == 1
    assert "event=sessions_lost" in told or " sessions_lost " in told
    assert told.splitlines()[-1].startswith("greenroom: the sessions are lost: ")
    assert "Traceback" not in told


def test_unreachable_coordinator_names_the_option() -> None:
    address = f"127.0.0.1:{free_port()}"
    assert_one_line(
        run("forget-node", "n1", "--coordinator", address), 1, f"{address} cannot be reached", "--coordinator"
    )


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, where a module is not installed."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = ['greenroom', *{arguments}];"
        "from greenroom_cluster.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(("arguments", "status"), [(["node", "--name", "n1"], 1), (["up"], 1), (["demo"], 2)])
def test_missing_tractor_prints_how_to_install_it(arguments: list[str], status: int) -> None:
    """Of the demo 1 says that something was lost."""
    result = run_without("tractor", *arguments)
    assert result.returncode == status
    assert "pip install --no-deps tractor==0.1.0a5" in result.stderr
    assert '"greenroom-cluster[tractor] @ file:///' in result.stderr
    assert "Traceback" not in result.stderr


def test_a_demo_over_tls_without_cryptography_says_how_to_install_it() -> None:
    """And does not exit with 1, which would say that something was lost."""
    result = run_without("cryptography", "demo", "--tls")
    assert result.returncode == 2
    assert 'pip install "cryptography>=42"' in result.stderr
    assert "Traceback" not in result.stderr


async def run_async(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [*COMMAND, *arguments], capture_stdout=True, capture_stderr=True, check=False
    )


@pytest.mark.trio
async def test_status_health_and_forget_node_on_a_cluster() -> None:
    settings = LocalClusterSettings(
        nodes=2,
        shards=4,
        listen="127.0.0.1:0",
        coordinator_listen="127.0.0.1:0",
        cluster="shop",
        restart_nodes=False,
        node=NodeOptions(actors=1),
        process=ProcessOptions(logs=LogSettings("json", "warning")),
    )
    async with open_local_cluster(settings) as cluster:
        ask = lambda command, *more: run_async(  # noqa: E731
            command, "--connect", ",".join(cluster.seeds), "--cluster", "shop", *more
        )
        table = await ask("status")
        assert table.returncode == 0
        text = table.stdout.decode()
        found = await cluster.fetch_map()
        for entry in (*found.nodes.values(), *found.actors.values()):
            assert entry.address in text
        assert "4 whole" in text
        assert "epoch" not in text
        assert "epoch" in (await ask("status", "--shards")).stdout.decode()

        document = msgspec.json.decode((await ask("status", "--json")).stdout)
        assert document["cluster"] == "shop"
        assert document["healthy"] is True
        assert [node["name"] for node in document["nodes"]] == ["n1", "n2"]
        assert {actor["slot"] for actor in document["actors"]} == {"n1/0", "n2/0"}
        assert [shard["shard"] for shard in document["shards"]] == [0, 1, 2, 3]
        for shard in document["shards"]:
            assert {shard["primary"], *shard["backups"]} == {"n1/0", "n2/0"}
            assert shard["epoch"] > 0
            assert shard["state"] == "full"

        health = await ask("health", "--json")
        assert health.returncode == 0
        assert msgspec.json.decode(health.stdout)["healthy"] is True
        assert (await ask("health", "--nodes", "2")).returncode == 0
        three = await ask("health", "--nodes", "3")
        assert three.returncode == 1
        assert b"2 of 3 nodes" in three.stdout

        wrong = await run_async("health", "--connect", cluster.seeds[0], "--cluster", "other")
        assert wrong.returncode == 2
        assert wrong.stderr.count(b"--cluster") == 1
        assert b"--connect" not in wrong.stderr

        actor = next(iter(found.actors.values())).address
        mistaken = await run_async("status", "--connect", actor, "--cluster", "shop")
        assert mistaken.returncode == 3
        assert f"{actor} ended the connection without an answer".encode() in mistaken.stderr
        assert b"and not an actor" in mistaken.stderr

        forget = partial(run_async, "forget-node", "n2", "--cluster", "shop")
        declare = partial(run_async, "declare-dead", "n2", "--cluster", "shop")
        for order in (forget, declare):
            for mistaken in (cluster.seeds[0], next(iter(found.actors.values())).address):
                refused = await order("--coordinator", mistaken)
                assert refused.returncode == 2
                assert b"--coordinator" in refused.stderr
            alive = await order("--coordinator", cluster.coordinator_address)
            assert alive.returncode == 2
            assert b"stop it first" in alive.stderr

        cluster.kill_node("n2")
        with trio.fail_after(30):
            while (await ask("health")).returncode != 1:
                pass
            while (declared := await declare("--coordinator", cluster.coordinator_address)).returncode != 0:
                pass
            assert declared.stdout == b"the processes of node n2 count as dead\n"
            assert "n2" in (await cluster.fetch_map()).nodes
            while (await forget("--coordinator", cluster.coordinator_address)).returncode != 0:
                pass
        document = msgspec.json.decode((await ask("status", "--json")).stdout)
        assert [node["name"] for node in document["nodes"]] == ["n1"]
        assert document["states"]["full"] == 0
