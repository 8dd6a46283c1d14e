"""Every example runs by its one command, over HTTP, and does what it shows."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.packaging.environments import clean_environment

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*_app.py"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(example: Path) -> Iterator[str]:
    """Run the example and give its address once it says that it listens."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-u", str(example)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(PORT=str(port), **given_store()),
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "unning on" in line:
                break
        else:
            pytest.fail("".join(said))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)


def given_store() -> dict[str, str]:
    return {name: os.environ[name] for name in ("GREENROOM_URL",) if name in os.environ}


def test_there_is_one_for_each_framework() -> None:
    assert [each.stem for each in EXAMPLES] == ["aiohttp_app", "fastapi_app", "litestar_app", "quart_app"]


@pytest.mark.system
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.stem)
def test_example(example: Path) -> None:
    with running(example) as url:
        phone = httpx.Client(base_url=url, headers={"user-agent": "phone"})
        laptop = httpx.Client(base_url=url, headers={"user-agent": "laptop"})
        assert phone.get("/cart").json() == {}
        assert not phone.cookies
        phone.post("/cart/mug")
        anonymous = phone.cookies["session"]
        assert phone.get("/devices").status_code == 401
        phone.post("/login/alice")
        laptop.post("/login/alice")
        assert phone.cookies["session"] != anonymous
        assert phone.post("/cart/mug").json() == {"mug": 2}
        devices = {each["device"]: each for each in phone.get("/devices").json()}
        assert devices["phone"]["this"]
        assert not devices["laptop"]["this"]
        assert phone.post(f"/devices/{devices['laptop']['handle']}/end").is_success
        assert laptop.get("/devices").status_code == 401
        assert phone.get("/cart").json() == {"mug": 2}
        phone.post("/logout")
        assert phone.get("/cart").json() == {}
