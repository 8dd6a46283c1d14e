"""What the supervised processes of these tests run."""

import os
import signal

import msgspec
import trio

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


async def end_at_once(settings: ServeSettings, started: Started) -> None:
    raise RuntimeError("this child never works")


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
