"""What supervision takes from the insides of libraries: a version without it must fail, not go on without.

Each test is a process of its own, since importing the modules changes the libraries.
"""

import subprocess
import sys

import pytest

from greenroom_cluster.runtime.hardening import tractor

REPLACED = [
    ("_actor.Actor", "_serve_forever"),
    ("_actor.Actor", "accept_addr"),
    ("_actor.Actor", "_process_messages"),
    ("_actor", "get_arbiter"),
    ("_root", "_connect_chan"),
    ("_mp_fixup_main", "_mp_figure_out_main"),
    ("_spawn", "trio"),
]

WITHOUT = """
import warnings
warnings.simplefilter("ignore")
import tractor
del tractor.{owner}.{name}
import greenroom_cluster.runtime.hardening
"""

LEAN = """
import sys
from greenroom_cluster.runtime.lean_child import load_less
load_less()
import structlog
from greenroom_cluster import logs
logs.configure(logs.LogSettings())
structlog.get_logger().warning("it still logs", exc_info=ValueError("with a traceback"))
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module}
print(sorted(loaded & {"rich", "pygments", "twisted"}))
"""

COMMAND = """
import sys
from greenroom_cluster.runtime.lean_child import load_logs
load_logs()
import greenroom_cluster.cli.commands
import greenroom_cluster.runtime.node_process
import greenroom_cluster.http.port
import greenroom_cluster.http.site
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"rich", "pygments", "twisted", "uvloop"}))
import rich.console
"""


def run(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.skipif(not hasattr(tractor, "_actor"), reason="nothing of a later tractor is replaced")
@pytest.mark.parametrize(("owner", "name"), REPLACED)
def test_a_tractor_without_what_is_replaced_is_not_imported(owner: str, name: str) -> None:
    done = run(WITHOUT.format(owner=owner, name=name))
    assert done.returncode == 1
    assert f"has no attribute '{name}'" in done.stderr


def test_structlog_does_without_what_is_hidden() -> None:
    done = run(LEAN)
    assert done.stdout == "[]\n", done.stderr
    assert "it still logs" in done.stderr
    assert "with a traceback" in done.stderr


def test_a_command_loads_what_it_shows_tables_with_only_when_it_does() -> None:
    done = run(COMMAND)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
