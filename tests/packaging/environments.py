"""Fresh environments made the way the docs tell, from wheels of this workspace, and what runs in them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
INSTALL_SECONDS = 150
RUN_SECONDS = 90
STOP_SECONDS = 30


def uv() -> str:
    """Return the uv that runs these tests, or the one that is installed."""
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "these tests build with uv: install it (pip install uv)"
    return found


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's variables without those that point into its own environment."""
    strange = ("GREENROOM_", "PYTHON", "VIRTUAL_ENV", "UV_PROJECT", "UV_RUN")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return {**kept, **more}


def run(
    *command: str | Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = RUN_SECONDS,
    status: int = 0,
) -> subprocess.CompletedProcess[str]:
    """Run to the end and return what was printed; anything but the expected exit status fails the test."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=cwd,
        env=clean_environment() if env is None else env,
    )
    assert done.returncode == status, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class Wheels:
    """The two wheels, as built."""

    facade: Path
    cluster: Path


@dataclass(frozen=True)
class Environment:
    """An environment with an interpreter and the commands beside it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin/python"

    @property
    def greenroom(self) -> Path:
        return self.folder / "bin/greenroom"

    def pip_install(self, *arguments: str | Path) -> None:
        run(self.python, "-m", "pip", "install", "--quiet", *arguments, seconds=INSTALL_SECONDS)

    def distributions(self) -> dict[str, str]:
        """Return the names and versions of what is installed."""
        listed = run(self.python, "-m", "pip", "list", "--format=json").stdout
        return {entry["name"].lower().replace("_", "-"): entry["version"] for entry in json.loads(listed)}


def fresh_environment(folder: Path) -> Environment:
    """Make an empty environment with pip, of the interpreter that runs the tests."""
    run(sys.executable, "-m", "venv", folder, seconds=INSTALL_SECONDS)
    return Environment(folder)


def build(folder: Path) -> Wheels:
    """Build both wheels from their source archives, as for a release."""
    run(uv(), "build", "--all-packages", "--out-dir", folder, cwd=ROOT, seconds=INSTALL_SECONDS)
    (facade,) = folder.glob("greenroom-*.whl")
    (cluster,) = folder.glob("greenroom_cluster-*.whl")
    return Wheels(facade, cluster)


@contextmanager
def cluster_up(greenroom: Path, folder: Path, *options: str) -> Iterator[dict[str, Any]]:
    """Run `greenroom up`, give what its ready line says, and end it with Ctrl-C, which must leave nothing."""
    errors = folder / "up.err"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [
                *(str(greenroom), "up", "--nodes", "3", "--actors", "1", "--listen", "127.0.0.1:0", "--json"),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env=clean_environment(),
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"no ready line: {errors.read_text()}"
            yield json.loads(line)
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_SECONDS) == 0
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
    assert "MultiError" not in errors.read_text()
    assert "Traceback" not in errors.read_text()


CLIENT = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from greenroom import SessionData, new_session_id, store_from_url

async def main(url):
    async with store_from_url(url) as store:
        session = SessionData(
            session_id=new_session_id(), expires=datetime.now(UTC) + timedelta(hours=1), data={"cart": {}}
        )
        await store.create(session)
        await store.patch(session.session_id, set={("cart", "sku-1"): 2})
        session = await store.rotate(session.session_id, user_id="alice")
        found = await store.get(session.session_id)
        print(found.user_id, found.data, len(await store.list_by_user("alice")))

asyncio.run(main(sys.argv[1]))
assert "trio" not in sys.modules
"""
CLIENT_SAYS = "alice {'cart': {'sku-1': 2}} 1\n"
