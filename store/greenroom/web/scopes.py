"""Where the visits of a request stand in its ASGI scope."""

from collections.abc import Mapping
from typing import Any

from greenroom.web.keeping import Keeping
from greenroom.web.visit import Visit

VISITS_KEY = "greenroom.visits"
"""The key under which middlewares put their `Visit`s into an ASGI scope: a tuple, the innermost first."""


def visit_in(scope: Mapping[str, Any], keeping: Keeping) -> Visit | None:
    """Return the visit that the middleware of this `Session` has put into a scope, if it has."""
    visit: Visit
    for visit in scope.get(VISITS_KEY) or ():
        if visit.settings is keeping:
            return visit
    return None


def innermost_visit(scope: Mapping[str, Any]) -> Visit | None:
    """Return the visit whose session stands in a scope, if the middleware of any `Session` has run."""
    return next(iter(scope.get(VISITS_KEY, ())), None)
