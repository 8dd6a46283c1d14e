"""Changes to tractor 0.1.0a5 before it may supervise: it listens nowhere, and obeys only its parent.

tractor's children dial a port on loopback, and so can any user of this host. Its protocol authenticates no
one, and any caller can end the supervisor's work by `self.cancel`. So there is no port: the supervisor makes
a pair of sockets for each child and keeps one end, and the child inherits the other. No other process can
speak to either side, or impersonate it.

Importing this module changes tractor in this process, once:

- Nothing listens, in a supervisor or in a child, and there is no registry of names to report to.
- A supervisor accepts replies from its children, but no commands: a command or a broken message ends that
child's
  conversation and nothing else.
- Children do not run the `__main__` script of their supervisor again; ours need nothing from it.
- Children watch their supervisor and end with it; a killed supervisor would leave them behind.
- Ctrl-C and a service manager's SIGTERM reach the whole process group. Only the supervisor acts on them.
"""

# ruff: noqa: SLF001  tractor offers no other way to reach what has to change here

import os
import socket
import warnings
from ast import literal_eval
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
import tractor
import trio

from greenroom_cluster.runtime.processes import serve_supervisor
from greenroom_cluster.runtime.starter import CHILD, StartedProcess, StarterGoneError, current
from greenroom_cluster.runtime.tasks import open_tasks

# The address that parts of tractor pass to each other; it is never bound or dialled.
NOWHERE = ("127.0.0.1", 0)
_TRACTORS_ENTRY = "tractor._child"
_ENTRY = "greenroom_cluster.runtime.child"

_log = structlog.get_logger("greenroom.supervision")


@asynccontextmanager
async def open_root(name: str) -> AsyncIterator[None]:
    """Run tractor in this process, which is a supervisor."""
    async with tractor.open_root_actor(name=name, arbiter_addr=NOWHERE, loglevel="critical"):
        yield


async def start_process(processes: Any, name: str, module: str) -> Any:
    """Start a child that runs functions of `module`; return tractor's portal to it."""
    return await processes.start_actor(name, enable_modules=[module])


def _replace(owner: Any, name: str, replacement: Any) -> None:
    """Put this in the place of one of tractor's own.

    Raises AttributeError if tractor has no such name (any more): it would go on as if nothing were replaced.
    """
    getattr(owner, name)
    setattr(owner, name, replacement)


# --- nothing listens -------------------------------------------------------------------------------------


async def _serve_nobody(actor: Any, _tasks: trio.Nursery, *, task_status: Any, **_address: object) -> None:
    """Replace tractor's server: wait until cancelled, without a listener."""
    actor._server_down = trio.Event()
    try:
        async with open_tasks() as server:
            task_status.started(server)
            await trio.sleep_forever()
    finally:
        actor._server_down.set()


class _NoRegistry:
    """Replaces tractor's registry of names, which is not used here."""

    async def run_from_ns(self, *_: object, **__: object) -> None:
        """Do nothing."""


@asynccontextmanager
async def _no_registry(*_: object) -> AsyncIterator[_NoRegistry]:
    yield _NoRegistry()


def _refused(*_: object) -> None:
    """Replace the connection by which a supervisor would look for another's registry."""
    raise ConnectionRefusedError


def _listen_nowhere() -> None:
    actor_type = tractor._actor.Actor
    _replace(actor_type, "_serve_forever", _serve_nobody)
    _replace(actor_type, "accept_addr", property(lambda _: NOWHERE))
    _replace(tractor._actor, "get_arbiter", _no_registry)
    _replace(tractor._root, "_connect_chan", _refused)


# --- the supervisor's side -------------------------------------------------------------------------------


class _Shadow:
    """A module with some names replaced."""

    def __init__(self, module: Any, **replaced: Any) -> None:
        self._module = module
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


async def _open_child(command: list[str]) -> StartedProcess:
    """Start a child as tractor would, with its end of a pair of sockets, and serve ours."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            process = await _started(command, theirs.fileno())
    except BaseException:
        ours.close()
        raise
    actor = tractor.current_actor()
    # The handler takes its first step after the caller has begun to wait for the child's name.
    actor._service_n.start_soon(_hear_child, actor, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    return process


async def _started(command: list[str], fd: int) -> StartedProcess:
    entry = command.index(_TRACTORS_ENTRY)
    arguments = command[entry + 1 :]
    starter = current()
    if starter is not None:
        name, _ = literal_eval(arguments[arguments.index("--uid") + 1])
        with suppress(StarterGoneError):
            title = f"{_ENTRY} {name}"
            return await starter.start(CHILD, title, arguments, [fd])
    command = [*command[:entry], _ENTRY, str(fd), str(os.getpid()), *arguments]
    return await trio.lowlevel.open_process(command, pass_fds=(fd,))


async def _hear_child(actor: Any, stream: trio.SocketStream) -> None:
    async with stream:
        try:
            await actor._stream_handler(stream)
        except Exception as error:  # noqa: BLE001  whatever a child's connection does, the others go on
            _log.debug("process_connection_ended", error=repr(error))


async def _answers_only(messages: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """Yield messages until one is a command."""
    async for message in messages:
        if isinstance(message, dict) and "cmd" in message:
            _log.warning("process_gave_a_command", reason="its conversation is ended")
            return
        yield message


async def _wait_for(process: StartedProcess) -> int | None:
    """Replace `trio.Process.wait`, which tractor calls by that name whatever the process is."""
    return await process.wait()


def _command_children() -> None:
    shadow = _Shadow(
        trio,
        lowlevel=_Shadow(trio.lowlevel, open_process=_open_child),
        Process=_Shadow(trio.Process, wait=_wait_for),
    )
    _replace(tractor._spawn, "trio", shadow)
    actor_type = tractor._actor.Actor
    process_messages: Callable[..., Any] = actor_type._process_messages

    async def guarded(actor: Any, channel: Any, *args: Any, **kwargs: Any) -> Any:
        if channel is not actor._parent_chan:
            channel._agen = _answers_only(channel._agen)
        return await process_messages(actor, channel, *args, **kwargs)

    _replace(actor_type, "_process_messages", guarded)
    # Tell children nothing of our `__main__`.
    _replace(tractor._mp_fixup_main, "_mp_figure_out_main", dict)


# --- the child's side ------------------------------------------------------------------------------------


def become_child(supervisor_pid: int) -> None:
    """Do nothing: `prepare_child` did it, before tractor ran in this process."""


def prepare_child(fd: int, supervisor: int) -> None:
    """Make this process a child of the supervisor at the other end of the socket `fd`, given its pidfd.

    It ends with the supervisor, and leaves signals to it.
    """
    serve_supervisor(supervisor)
    inherited = socket.socket(fileno=fd)
    inherited.set_inheritable(False)

    async def connect(channel: Any) -> Any:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(inherited))
        return channel.set_msg_transport(stream)

    _replace(tractor._ipc.Channel, "connect", connect)


def _quieten() -> None:
    """Keep the warnings of tractor's old code out of the logs of this process and its children."""
    warnings.filterwarnings("ignore", message=r"(trio\.)?MultiError", category=FutureWarning)
    known = "ignore:trio.MultiError is deprecated:FutureWarning"
    filters = os.environ.get("PYTHONWARNINGS", "")
    if known not in filters:
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [filters, known]))


def _install() -> None:
    _quieten()
    _listen_nowhere()
    _command_children()


_install()
