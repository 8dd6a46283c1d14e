"""Secrets in a file: who may read it, how they are replaced while the app runs, and what a bad file does."""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from greenroom import MemoryStore, UsageError
from greenroom.secret_file import FILE_BYTES_MAX
from greenroom.testing import ManualClock
from greenroom.web import SecretFile, Session, SessionMiddleware
from tests.store.web.web_stage import SECRET, browser, session_of

OLD, NEW, NEWEST = (f"{SECRET}: number {number}" for number in range(3))


class Process:
    """A process of an app whose secrets are in a file, on a clock of its own."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.clock = ManualClock()
        self.sessions = Session(
            **{
                "secret": SecretFile(path),
                "store": MemoryStore(clock=self.clock),
                "clock": self.clock,
                **options,
            }
        )

    def sign(self) -> bytes:
        return self.sessions.signer.sign("id").encode()

    def takes(self, signed: bytes) -> bool:
        return self.sessions.signer.verify(signed) == "id"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    put(path, OLD)
    return path


def put(path: Path, *secrets: str, mode: int = 0o600) -> None:
    """Replace the file by another, as it should be done."""
    other = path.with_name("other")
    other.write_text("".join(f"{each}\n" for each in secrets))
    other.chmod(mode)
    other.rename(path)


def signed_by(secret: str) -> bytes:
    return Session(secret=secret, store=MemoryStore()).signer.sign("id").encode()


def test_the_first_signs_and_all_verify(path: Path) -> None:
    path.write_text(f"\n  {NEW}  \n\n{OLD}\n")
    process = Process(path)
    assert process.sign() == signed_by(NEW)
    assert process.takes(signed_by(OLD))
    assert not process.takes(signed_by(NEWEST))
    in_a_middleware = SessionMiddleware(lambda *_: None, SecretFile(str(path)), store=MemoryStore())  # type: ignore[arg-type]
    assert in_a_middleware.session.signer.sign("id").encode() == signed_by(NEW)


def test_a_changed_file_is_taken_within_a_second(path: Path) -> None:
    process = Process(path)
    before = process.sign()
    put(path, NEW, OLD)
    process.clock.advance(1)
    assert process.sign() == signed_by(NEW)
    assert process.takes(before), "the old one still verifies"
    put(path, NEW)
    process.clock.advance(1)
    assert not process.takes(before), "and does so no longer, whatever was remembered"
    process.clock.advance(-3600)
    put(path, NEWEST, NEW)
    assert process.sign() == signed_by(NEWEST), "a clock that was set back delays nothing"


def test_no_process_refuses_what_another_has_signed_by_a_newer_file(path: Path) -> None:
    """Of two workers one looks first: the browser's next request may come to the other at once."""
    one, other = Process(path), Process(path)
    put(path, NEW, OLD)
    one.clock.advance(1)
    assert other.takes(one.sign())
    assert one.takes(other.sign())


def test_a_look_costs_little(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []
    monkeypatch.setattr(SecretFile, "mark", lambda file: looks.append(file.path))
    process = Process(path)
    looks.clear()
    for _ in range(1000):
        process.takes(signed_by_old)
        process.takes(b"junk")
    assert not looks
    process.clock.advance(1)
    for _ in range(1000):
        process.takes(signed_by_old)
    assert len(looks) == 1


signed_by_old = signed_by(OLD)


def test_a_linked_file_may_be_replaced(path: Path, tmp_path: Path) -> None:
    """As systemd and Kubernetes hand on secrets."""
    link = tmp_path / "link"
    link.symlink_to(path)
    process = Process(link)
    newer = tmp_path / "newer"
    put(newer, NEW)
    (tmp_path / "next").symlink_to(newer)
    (tmp_path / "next").rename(link)
    process.clock.advance(1)
    assert process.sign() == signed_by(NEW)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601, 0o666, 0o777])
def test_a_file_that_others_can_open_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(UsageError, match=rf"has the mode {mode:04o}.* chmod 600"):
        Process(path)
    with pytest.raises(UsageError, match="chmod 600"):
        Process(path, dev=True)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_its_owner_alone_is_taken(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert Process(path).sign() == signed_by(OLD)


def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns it can read it and replace it, whatever its mode."""
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        Process(path)
        os.chown(path, 4711, -1)
    with pytest.raises(UsageError, match="belongs to another user"):
        Process(path)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b" \n\n", "holds no secret"),
    "no text": (b"\xff" * 40, "is not text in UTF-8"),
    "too large": (b"x" * (FILE_BYTES_MAX + 1), "is larger than"),
    "too short": (b"hunter2\n" + OLD.encode(), "secret is too short"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_at_the_start(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        Process(path)
    assert "hunter2" not in str(caught.value)
    assert OLD not in str(caught.value)


def test_what_is_no_file_is_refused_at_the_start(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for wrong, message in (
        (tmp_path, "no regular file"),
        (pipe, "no regular file"),
        (tmp_path / "a", "is not there"),
    ):
        with pytest.raises(UsageError, match=message):
            Process(wrong)
    for no_path in (None, 7, b"secrets".join):
        with pytest.raises(UsageError, match="takes the path of a file"):
            SecretFile(no_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="be opened"):
        Process(Path("a\0b"))


@pytest.mark.parametrize("how", [*BAD, "mode", "gone"])
def test_a_bad_file_keeps_the_old_secrets_and_says_so_once(
    path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(path)
    match how:
        case "mode":
            put(path, NEW, mode=0o644)
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(BAD[how][0])
    for _ in range(5):
        process.clock.advance(1)
        assert process.sign() == signed_by(OLD)
        assert not process.takes(signed_by(NEW))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the secrets of before stay in use" in record.getMessage()
    assert str(path) in record.getMessage() or how == "too short"
    for secret in (OLD, NEW, "hunter2"):
        assert secret not in caplog.text
    put(path, NEW)
    assert process.takes(signed_by(NEW)), "a good one is taken at once"


def test_a_signal_reloads_where_the_app_asks_for_it(path: Path) -> None:
    before = signal.getsignal(signal.SIGHUP)
    process = Process(path)
    assert signal.getsignal(signal.SIGHUP) == before, "nothing is installed behind the app's back"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reloaded = loop.create_future()
        loop.add_signal_handler(signal.SIGHUP, lambda: reloaded.set_result(process.sessions.reload_secrets()))
        try:
            put(path, NEW, OLD)
            os.kill(os.getpid(), signal.SIGHUP)
            assert await asyncio.wait_for(reloaded, 30)
            assert process.sign() == signed_by(NEW)
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    asyncio.run(main())
    assert process.sessions.reload_secrets(), "the same again is fine"
    path.chmod(0o644)
    assert not process.sessions.reload_secrets()
    with pytest.raises(UsageError, match="no SecretFile"):
        Session(dev=True).reload_secrets()


def test_nobody_is_logged_out_as_secrets_are_replaced(path: Path) -> None:
    """In three steps, while a browser's requests go to two workers in turn."""

    async def main() -> None:
        store = MemoryStore()

        def worker() -> tuple[Process, Any]:
            from starlette.applications import Starlette
            from starlette.responses import JSONResponse
            from starlette.routing import Route

            async def login(request: Any) -> JSONResponse:
                session_of(request).greenroom.login("alice")
                return JSONResponse({})

            async def who(request: Any) -> JSONResponse:
                return JSONResponse(session_of(request).greenroom.user_id)

            process = Process(path, store=store)
            app = Starlette(routes=[Route("/login", login), Route("/who", who)])
            app.add_middleware(SessionMiddleware, session=process.sessions)
            return process, app

        workers = [worker(), worker()]
        async with browser(workers[0][1]) as one, browser(workers[1][1]) as two:
            await one.get("/login")
            for secrets in ([NEW, OLD], [NEWEST, NEW, OLD]):
                put(path, *secrets)
                workers[0][0].clock.advance(1)
                for visitor, other in ((one, two), (two, one)):
                    other.cookies.clear()
                    for cookie in visitor.cookies.jar:
                        other.cookies.jar.set_cookie(cookie)
                    assert (await other.get("/who")).json() == "alice"
                await one.get("/login")

    asyncio.run(main())


def test_nothing_shown_holds_a_secret(path: Path) -> None:
    file = SecretFile(path)
    process = Process(path)
    shown = f"{file!r} {file.read()!r} {process.sessions!r} {process.sessions.signer!r}"
    assert OLD not in shown
    assert str(path) in repr(file)
