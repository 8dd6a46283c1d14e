"""The runners of a store, one for each event loop.

A store belongs to no loop: the first operation in a loop makes a runner there, and loops in several threads
have one each. Making a runner removes those of loops that have ended. After a fork the child drops all of
them, so that no two processes ever speak as the same client.
"""

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

from greenroom.dialog import Dialog
from greenroom.dialog.runners import Runners
from greenroom.drivers import Runner
from greenroom.drivers.security import Security
from greenroom.errors import UsageError
from greenroom.loopback_secrets import LoopbackSecrets

LoopKey: TypeAlias = Any
_AnyRunner: TypeAlias = Runner[Any]

_registries: "weakref.WeakSet[Registry]" = weakref.WeakSet()


class Registry:
    """The runners of one store, by loop. `make_dialog` makes the dialog of a new one.

    With `security` their connections are of TLS; without, `secrets` are proven on them. With `loopback_only`
    none leaves this host.
    """

    def __init__(
        self,
        make_dialog: Callable[[], Dialog],
        security: Security | None = None,
        secrets: LoopbackSecrets | None = None,
        *,
        loopback_only: bool = False,
    ) -> None:
        self._security = security
        self._secrets = secrets
        self._loopback_only = loopback_only
        self._make_dialog = make_dialog
        self._runners: Runners[_AnyRunner] = Runners()
        self._lock = threading.Lock()
        self._latest: tuple[object, _AnyRunner | None] = (None, None)
        _registries.add(self)

    def current(self) -> _AnyRunner:
        """Return the runner of the running loop. Raises UsageError outside of one."""
        # Asking for the running loop costs a system call. While a loop of asyncio runs, its thread has a
        # method of that loop as this hook, a new object for every run.
        hook = sys.get_asyncgen_hooks().firstiter
        known, latest = self._latest
        if known is hook and latest is not None and not latest.closed:
            return latest
        key = running_loop()
        runner = self._runners.get(key)
        if runner is None or runner.closed:
            runner = self._make(key)
        if getattr(hook, "__self__", None) is key:
            self._latest = (hook, runner)
        return runner

    def current_if_any(self) -> _AnyRunner | None:
        """Return the runner of the running loop, if it has one."""
        return self._runners.get(running_loop())

    def all(self) -> list[_AnyRunner]:
        """Return every runner."""
        with self._lock:
            return [runner for _, runner in self._runners.items()]

    def take_all(self) -> list[_AnyRunner]:
        """Return every runner and forget them."""
        with self._lock:
            self._latest = (None, None)
            return self._runners.take_all()

    def _make(self, key: LoopKey) -> _AnyRunner:
        with self._lock:
            for other, runner in self._runners.items():
                if runner.over or runner.closed:
                    runner.discard()
                    self._runners.drop(other)
            dialog = self._make_dialog()
            if isinstance(key, asyncio.AbstractEventLoop):
                from greenroom.drivers.asyncio_ import AsyncioRunner

                make: Callable[..., _AnyRunner] = AsyncioRunner
            else:
                from greenroom.drivers.trio_ import TrioRunner

                make = TrioRunner
            made = make(dialog, self._security, self._secrets, loopback_only=self._loopback_only)
            self._runners.put(key, made)
            return made

    def _forked(self) -> None:
        """Drop what the parent opened. If another of its threads held the lock, no one would release it."""
        self._latest = (None, None)
        self._lock = threading.Lock()
        for runner in self._runners.forked():
            runner.discard()


def let_go(registry: Registry) -> None:
    """Close every runner of a store that is no longer used. Call it from any thread."""
    for runner in registry.take_all():
        if runner.over:
            runner.discard()
        else:
            runner.dismiss()


def running_loop() -> LoopKey:
    """Return the identity of the running loop: trio's token, or the asyncio loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    trio = sys.modules.get("trio")
    # In trio's guest mode an asyncio loop runs too, but no task of its own is what runs.
    if trio is None or (loop is not None and asyncio.current_task(loop) is not None):
        return loop if loop is not None else _raise_no_loop()
    try:
        trio.lowlevel.current_task()
    except (RuntimeError, AttributeError):
        return loop if loop is not None else _raise_no_loop()
    return trio.lowlevel.current_trio_token()


def _raise_no_loop() -> NoReturn:
    raise UsageError("call the store from a coroutine that runs under asyncio or trio")


def _after_fork_in_child() -> None:
    for registry in list(_registries):
        registry._forked()  # noqa: SLF001  the same module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
