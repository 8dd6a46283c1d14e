"""What the supervised processes of these tests run."""

import ctypes
import itertools
import os
import resource
import signal

import msgspec
import trio
import trio.testing

from greenroom.errors import UsageError
from greenroom_cluster.runtime.hardening import tractor
from greenroom_cluster.runtime.supervised import Started


class ServeSettings(msgspec.Struct):
    incarnation: bytes
    marker: str = ""


async def serve(settings: ServeSettings, started: Started) -> None:
    """Be ready, and stay until told to stop; then write the marker file."""
    started(f"child:{settings.incarnation.hex()}")
    try:
        await trio.sleep_forever()
    finally:
        if settings.marker:
            with trio.CancelScope(shield=True):
                await trio.Path(settings.marker).write_text("cleaned up")


async def tell_dumpable(settings: ServeSettings, started: Started) -> None:
    """Say whether this process may be dumped, and how much of it."""
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    started(f"{dumpable} {resource.getrlimit(resource.RLIMIT_CORE)}")
    await trio.sleep_forever()


async def end_at_once(settings: ServeSettings, started: Started) -> None:
    raise RuntimeError("this child never works")


async def refuse_to_start(settings: ServeSettings, started: Started) -> None:
    raise UsageError("the marker is impossible")


async def refuse_once_ready(settings: ServeSettings, started: Started) -> None:
    await _be_ready(started)
    raise UsageError("the marker has become impossible")


async def die_while_starting(settings: ServeSettings, started: Started) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def block_after_ready(settings: ServeSettings, started: Started) -> None:
    """Be ready, then hang: the event loop never gets control back."""
    started("blocks")
    await trio.sleep(0.2)
    signal.pause()


async def ignore_stop(settings: ServeSettings, started: Started) -> None:
    started("ignores")
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def cancel_the_supervisor(settings: ServeSettings, started: Started) -> None:
    await _command("cancel", started)


async def stop_the_supervisors_server(settings: ServeSettings, started: Started) -> None:
    await _command("cancel_server", started)


async def send_an_error_for_nobody(settings: ServeSettings, started: Started) -> None:
    error = {"tb_str": "", "type_str": "ValueError", "src_actor_uid": ("a", "b")}
    await _say({"error": error}, started)


async def send_garbage(settings: ServeSettings, started: Started) -> None:
    await _be_ready(started)
    await tractor.current_actor()._parent_chan.msgstream.stream.send_all(b"\xff" * 100_000)
    await trio.sleep_forever()


async def hang_up(settings: ServeSettings, started: Started) -> None:
    await _be_ready(started)
    await tractor.current_actor()._parent_chan.aclose()
    await trio.sleep_forever()


async def _command(name: str, started: Started) -> None:
    """Have the supervisor's end run one of its own methods, which tractor allows to any peer."""
    await _say({"cmd": ("self", name, {}, tractor.current_actor().uid, "1")}, started)


async def _say(message: object, started: Started) -> None:
    await _be_ready(started)
    await tractor.current_actor()._parent_chan.send(message)
    await trio.sleep_forever()


async def _be_ready(started: Started) -> None:
    """Return when the supervisor has been told."""
    started("says")
    await trio.testing.wait_all_tasks_blocked()


async def answer(settings: ServeSettings, started: Started) -> None:
    """Tell how often it was asked."""
    asked = itertools.count(1)
    started.answer_with(lambda: b"%d" % next(asked))
    started("here")
    await trio.sleep_forever()


async def answer_with_an_error(settings: ServeSettings, started: Started) -> None:
    started.answer_with(lambda: b"%d" % (1 // 0))
    started("here")
    await trio.sleep_forever()
