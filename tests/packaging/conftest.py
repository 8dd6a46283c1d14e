"""Environments that several modules use; each takes a quarter of a minute to build."""

import pytest

from tests.packaging.environments import Environment
from tests.packaging.former import former_environment
from tests.packaging.images import why_no_overlays


@pytest.fixture(scope="session")
def overlays() -> None:
    """Skip the test if this kernel mounts no overlays, as within some containers."""
    if reason := why_no_overlays():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def former(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with both distributions of the last release of version 3."""
    return former_environment(tmp_path_factory.mktemp("former"))
