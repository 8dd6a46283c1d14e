"""What is observed is observed under asyncio and under trio."""

import pytest

from greenroom.testing import Library, available_libraries, library_named


@pytest.fixture(params=available_libraries())
def library(request: pytest.FixtureRequest) -> Library:
    return library_named(request.param)
