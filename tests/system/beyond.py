"""A host with an address beyond loopback, for a process alone: `python -m tests.system.beyond`.

Runs in a network namespace of its own, where `ADDRESS` is one of this host. Prints `as promised` at its end.
"""

import asyncio
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from greenroom import SessionData, UsageError, new_session_id, store_from_url
from greenroom.loopback import INSECURE_OPTION as OPTION

ADDRESS = "10.9.9.9"
TOLD = "as promised"
COMMAND = [sys.executable, "-m", "greenroom_cluster"]
OVERRIDE = "--insecure-plaintext-beyond-loopback"
LISTEN = ("--listen", f"{ADDRESS}:7400")

SET_UP = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo"


def assert_refused(folder: Path, *arguments: str, tls: str = "--tls-cert") -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, cwd=folder, timeout=60, check=False
    )
    assert done.returncode == 2, done
    for option in (f"Give {tls},", OVERRIDE):
        assert option in done.stderr, done.stderr


async def use(url: str) -> None:
    made = SessionData(session_id=new_session_id(), expires=datetime.now(UTC) + timedelta(hours=1))
    async with store_from_url(url) as store:
        await store.create(made)
        assert await store.get(made.session_id) is not None
    try:
        store_from_url(url.partition("?")[0])
    except UsageError:
        return
    raise AssertionError("not refused")


def main() -> None:
    with TemporaryDirectory() as made:
        folder = Path(made)
        assert_refused(folder, "coordinator", "--listen", f"{ADDRESS}:7300")
        assert_refused(folder, "node", "--name", "n1", *LISTEN)
        assert_refused(
            folder, "node", "--name", "n1", "--listen", "127.0.0.1:0", "--advertise", f"{ADDRESS}:0"
        )
        assert_refused(folder, "up", *LISTEN, tls="--tls")
        assert not list(folder.iterdir())
        command = [*COMMAND, "up", "--json", "--nodes", "2", "--actors", "1", *LISTEN]
        with subprocess.Popen([*command, OVERRIDE], stdout=subprocess.PIPE, text=True, cwd=folder) as up:
            assert up.stdout is not None
            try:
                url = json.loads(up.stdout.readline())["url"]
                assert url == f"greenroom://{ADDRESS}:7400,{ADDRESS}:7401/greenroom?{OPTION}=true"
                asyncio.run(use(url))
            finally:
                up.send_signal(signal.SIGINT)
    sys.stdout.write(f"{TOLD}\n")


if __name__ == "__main__":
    main()
