"""An adapter without its framework says what to install."""

import subprocess
import sys

import pytest

from tests.store.extras import requirements_of

BLOCKED = """
import sys
sys.modules[sys.argv[2]] = None
try:
    __import__("greenroom.integrations." + sys.argv[1])
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "framework"),
    [
        ("litestar", "litestar"),
        ("quart", "quart"),
        ("aiohttp", "aiohttp_session"),
        ("aiohttp", "aiohttp"),
        ("starsessions", "starsessions"),
    ],
)
def test_what_the_extra_requires_is_named(module: str, framework: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, module, framework], capture_output=True, text=True, timeout=60
    )
    assert f"pip install {requirements_of(module)}" in done.stdout, done.stderr
