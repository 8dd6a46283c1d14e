"""SIGHUP: files are read anew, and the end of a terminal is told from that."""

import os
import pty
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from greenroom_cluster.runtime.proving import credentials_of
from greenroom_cluster.runtime.reloading import reload_all
from greenroom_cluster.tls_options import TlsOptions
from tests.authority import Authority

NODE = "greenroom://shop/node/n1"
IN_A_TERMINAL = """
import os, signal, sys
from greenroom_cluster.runtime.reloading import Terminal
out = int(sys.argv[1])
# The tests themselves may run under nohup.
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[2] == "nohup" else signal.SIG_DFL)
terminal = Terminal()
signal.signal(signal.SIGHUP, lambda *_: None)  # else "nohup" has it ignored
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # it may come before somebody waits
os.write(out, b"ready\\n")
signal.sigwait({signal.SIGHUP})
os.write(out, str(terminal.is_gone()).encode())
"""


def test_reload_reads_the_files_of_all_that_are_in_use(tmp_path: Path) -> None:
    authority = Authority()
    files = authority.issue(NODE).files(tmp_path, "n1")
    options = TlsOptions(tls_cert=Path(files.cert), tls_key=Path(files.key), tls_ca=Path(files.ca))
    both = [credentials_of(options, "shop", "node", "n1") for _ in range(2)]
    renewed = authority.issue(NODE)
    renewed.files(tmp_path, "n1")
    reload_all()
    assert [each.current().serial for each in both if each is not None] == [renewed.serial] * 2


@pytest.mark.parametrize("other", ["greenroom://shop/client/web", "greenroom://shop/node/n2"])
def test_files_of_another_holder_are_not_used(other: str, tmp_path: Path) -> None:
    """At a start they are refused; later, with what was copied in the wrong place, nobody could connect."""
    authority = Authority()
    files = authority.issue(NODE).files(tmp_path, "n1")
    options = TlsOptions(tls_cert=Path(files.cert), tls_key=Path(files.key), tls_ca=Path(files.ca))
    used = credentials_of(options, "shop", "node", "n1")
    assert used is not None
    authority.issue(other).files(tmp_path, "n1")
    with capture_logs() as logs:
        reload_all()
    assert used.current().identity.uri == NODE
    told = [line["reason"] for line in logs if line["event"] == "tls_files_refused"]
    assert any(f"the certificate is that of {other}" in reason for reason in told)


@pytest.mark.parametrize(
    ("ends", "mode", "gone"),
    [(True, "plain", "True"), (False, "plain", "False"), (True, "nohup", "False")],
)
def test_end_of_the_terminal_is_told_from_a_request(ends: bool, mode: str, gone: str) -> None:
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", IN_A_TERMINAL, str(theirs), mode])
    os.close(theirs)
    with os.fdopen(ours) as told:
        assert told.readline() == "ready\n"
        if ends:
            os.close(terminal)
        else:
            os.kill(pid, 1)
        assert told.read() == gone
    os.waitpid(pid, 0)
    if not ends:
        os.close(terminal)
