"""What tractor 0.1.0a5 needs before it may listen on a port of ours.

Importing this module changes tractor in this process, once. In a child tractor imports it before the child
listens (it comes with `supervision` among the child's modules), so there is no unguarded moment:

- Any stray connection (an HTTP probe, a truncated frame, a bad handshake, an announced 4 GiB) would end the
  process. Here a connection reaches tractor only after its first frame was looked at without taking it from
  the socket and found to be the name of a process that this supervisor started. Children have nobody to
  listen to: they turn every connection away, and close their listener once they are under way.
- Children would run the `__main__` script of their supervisor again; ours need nothing from it.
- A killed supervisor would leave its children behind: they watch it, and leave with it.
- Ctrl-C and a service manager's SIGTERM reach the whole process group. Only the supervisor acts on them.

tractor's later versions have other internals; what is not there is left alone.
"""

# ruff: noqa: SLF001  tractor offers no other way to reach what has to change here

import faulthandler
import os
import signal
import struct
import warnings
from typing import Any

import msgspec
import structlog
import trio

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # tractor 0.1.0a5 imports trio.MultiError
    import tractor

from greenroom_cluster.runtime.processes import exit_with_parent

__all__ = ["child_name", "close_listener", "release_starter", "tractor"]

HANDSHAKE_SECONDS = 2.0
_HANDSHAKE_BYTES_MAX = 512
_HEADER = struct.Struct("<I")
_PEEK_PAUSE_SECONDS = 0.02

_log = structlog.get_logger("greenroom.supervision")
_decoder = msgspec.msgpack.Decoder(tuple[str, str])


def child_name(name: str, supervisor_pid: int) -> str:
    """Return the name under which tractor starts a child; it tells the child whose it is."""
    return f"{name}@{supervisor_pid}"


def close_listener(actor: Any) -> None:
    """Stop listening in a child; its channel to the supervisor lives on.

    Later versions of tractor can only close both; their listeners survive what strangers send.
    """
    if hasattr(actor, "cancel_server"):
        actor.cancel_server()


def release_starter(processes: Any) -> None:
    """Let the task that started a process end; for when the process is dead.

    Once the process has connected, that task waits, shielded, for the end of the nursery of processes. If
    `start_actor` is cancelled in that very moment, it waits for that task, and the nursery for `start_actor`.
    """
    join = getattr(processes, "_join_procs", None)
    if join is not None:
        join.set()


async def _first_name(stream: trio.SocketStream) -> tuple[str, str] | None:
    """Return the name that the connection opens with, left unread, or None if it opens otherwise."""
    while True:
        seen = await stream.socket.recv(_HEADER.size + _HANDSHAKE_BYTES_MAX, trio.socket.MSG_PEEK)
        if not seen:
            return None
        if len(seen) >= _HEADER.size:
            (length,) = _HEADER.unpack_from(seen)
            if length > _HANDSHAKE_BYTES_MAX:
                return None
            if len(seen) >= _HEADER.size + length:
                try:
                    return _decoder.decode(seen[_HEADER.size : _HEADER.size + length])
                except msgspec.DecodeError:
                    return None
        # The rest is on its way; what is there makes the socket readable, so there is nothing to wait for.
        await trio.sleep(_PEEK_PAUSE_SECONDS)


async def _is_expected(actor: Any, stream: trio.SocketStream) -> bool:
    """Whether the connection comes from a process that this supervisor started."""
    if actor._parent_chan is not None:
        return False
    name = None
    with trio.move_on_after(HANDSHAKE_SECONDS):
        try:
            name = await _first_name(stream)
        except OSError:
            return False
    return name is not None and (
        name in actor._peer_connected or name in actor._actoruid2nursery or name in actor._peers
    )


def _guard_connections(actor_type: Any) -> None:
    """Let only the supervisor's children reach tractor's handler, and no error of theirs out of it."""
    handle = actor_type._stream_handler

    async def guarded(actor: Any, stream: trio.SocketStream) -> None:
        if not await _is_expected(actor, stream):
            _log.debug("stray_connection", reason="not a process of this supervisor")
            return
        try:
            await handle(actor, stream)
        except Exception as error:  # noqa: BLE001  whatever a child's connection does, the others go on
            _log.debug("process_connection_ended", error=repr(error))

    actor_type._stream_handler = guarded


def _guard_child(supervisor_pid: int) -> None:
    """Tie this child to its supervisor's life, and leave signals to the supervisor."""
    exit_with_parent(supervisor_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()


def _quieten() -> None:
    """Spare the logs of this process and its children the warnings that tractor's old code causes."""
    warnings.filterwarnings("ignore", message=r"(trio\.)?MultiError", category=FutureWarning)
    known = "ignore:trio.MultiError is deprecated:FutureWarning"
    filters = os.environ.get("PYTHONWARNINGS", "")
    if known not in filters:
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [filters, known]))


def _install() -> None:
    _quieten()
    fixup = getattr(tractor, "_mp_fixup_main", None)
    if hasattr(fixup, "_mp_figure_out_main"):
        fixup._mp_figure_out_main = dict  # type: ignore[union-attr]
    actor_module = getattr(tractor, "_actor", None)
    actor_type = getattr(actor_module, "Actor", None)
    if hasattr(actor_type, "_stream_handler"):
        _guard_connections(actor_type)
    actor = tractor.current_actor(err_on_no_runtime=False)
    if actor is not None and not tractor.is_root_process():
        _, _, supervisor_pid = actor.name.rpartition("@")
        if supervisor_pid.isdecimal():
            _guard_child(int(supervisor_pid))


_install()
