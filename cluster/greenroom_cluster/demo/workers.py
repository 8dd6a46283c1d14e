"""The shop's worker processes: uvicorn servers with nothing in common but the URL of the store."""

import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager

import httpx
import trio

from greenroom.errors import GreenroomError
from greenroom_cluster.demo.worker import PARENT_VARIABLE, SECRET_VARIABLE, URL_VARIABLE
from greenroom_cluster.runtime.ports import reserved_port

WORKERS = 2
START_SECONDS = 20.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.05
# Longer than a browser keeps an idle connection, so that no request meets a closing one.
KEEP_ALIVE_SECONDS = 120


class WorkerFailedError(GreenroomError):
    """A worker of the shop ended, or did not begin to serve in time; says what it wrote."""


@asynccontextmanager
async def shop_workers(store_url: str, count: int = WORKERS) -> AsyncIterator[tuple[str, ...]]:
    """Run `count` workers and yield their base addresses once all of them serve; end them afterwards.

    Raises WorkerFailedError if one does not start.
    """
    processes: list[trio.Process] = []
    secret = secrets.token_hex(32)
    held = ExitStack()
    try:
        # Held throughout, so that nobody else is given them before the workers listen.
        sockets = [held.enter_context(reserved_port()) for _ in range(count)]
        ports = [each.getsockname()[1] for each in sockets]
        addresses = tuple(f"http://127.0.0.1:{port}" for port in ports)
        for port in ports:
            # One by one: a list made at once would lose those started when a later one fails.
            processes.append(await _start(store_url, secret, port))  # noqa: PERF401
        with trio.move_on_after(START_SECONDS) as waiting:
            async with httpx.AsyncClient(trust_env=False) as client:
                for address, process in zip(addresses, processes, strict=True):
                    await _wait_serving(client, address, process)
        if waiting.cancelled_caught:
            raise WorkerFailedError(f"the shop does not serve after {START_SECONDS:.0f} s")
        yield addresses
    finally:
        with trio.CancelScope(shield=True):
            await _stop(processes)
        held.close()


async def _start(store_url: str, secret: str, port: int) -> trio.Process:
    command = (
        *(sys.executable, "-m", "uvicorn", "--factory", "greenroom_cluster.demo.worker:app"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--log-level", "warning", "--no-access-log"),
        *("--timeout-keep-alive", str(KEEP_ALIVE_SECONDS), "--timeout-graceful-shutdown", "2"),
    )
    environment = {
        **os.environ,
        URL_VARIABLE: store_url,
        SECRET_VARIABLE: secret,
        PARENT_VARIABLE: str(os.getpid()),
    }
    # A session of its own: Ctrl-C in a terminal reaches the demo, which ends its workers in order.
    return await trio.lowlevel.open_process(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _wait_serving(client: httpx.AsyncClient, address: str, process: trio.Process) -> None:
    while True:
        if process.poll() is not None:
            raise WorkerFailedError(f"a worker of the shop ended with status {process.returncode}")
        try:
            await client.get(address + "/")
        except httpx.TransportError:
            await trio.sleep(POLL_SECONDS)
        else:
            return


async def _stop(processes: Sequence[trio.Process]) -> None:
    """SIGTERM, and SIGKILL for what is left after STOP_SECONDS."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        with trio.move_on_after(STOP_SECONDS):
            await process.wait()
        if process.poll() is None:
            process.kill()
            await process.wait()
