"""What every test of the servers leaves as it found it."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """Forget how a test set up the logs: they would go on to a stream that pytest has closed since."""
    yield
    structlog.reset_defaults()
