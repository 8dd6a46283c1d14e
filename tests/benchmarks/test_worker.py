"""What a client process says is its answers and nothing else."""

import subprocess
import sys

import msgspec

from benchmarks.orders import Answer, Done

PRINTING = """
import os
from benchmarks.orders import Done
from benchmarks.worker import keep_stdout

say = keep_stdout()
print("a word of a library", flush=True)
os.write(1, b"a word of native code")
say(Done(seconds=1.5))
"""


def test_what_a_library_prints_is_not_taken_for_an_answer() -> None:
    ended = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, check=True, timeout=60)
    (line,) = ended.stdout.splitlines()
    assert msgspec.json.decode(line, type=Answer) == Done(seconds=1.5)
    assert b"a word of a library" in ended.stderr
    assert b"a word of native code" in ended.stderr
