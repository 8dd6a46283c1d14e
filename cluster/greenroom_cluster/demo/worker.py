"""One worker process of the shop: `uvicorn --factory greenroom_cluster.demo.worker:app`.

It is told everything by its environment: GREENROOM_URL names the store, GREENROOM_DEMO_SECRET signs the
cookies, GREENROOM_DEMO_PARENT is the process without which it must not go on living.
"""

import logging
import os

from starlette.applications import Starlette

import greenroom
from greenroom_cluster.demo.shop import create_app
from greenroom_cluster.runtime.processes import exit_with_parent

URL_VARIABLE = "GREENROOM_URL"
PARENT_VARIABLE = "GREENROOM_DEMO_PARENT"
SECRET_VARIABLE = "GREENROOM_DEMO_SECRET"  # noqa: S105  the name of it


def app() -> Starlette:
    """Return the shop over the store that GREENROOM_URL names.

    Raises UsageError if there is no such variable or its value is no store's URL, or if there is no secret.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise greenroom.UsageError(
            f"set {URL_VARIABLE} to the store's URL, for example greenroom://127.0.0.1:7400"
        )
    secret = os.environ.get(SECRET_VARIABLE)
    if not secret:
        raise greenroom.UsageError(f"set {SECRET_VARIABLE} to a random str, the same for all workers")
    if parent := os.environ.get(PARENT_VARIABLE):
        exit_with_parent(int(parent))
    # Changes that lose to a logout are what the customers provoke all the time.
    logging.getLogger("greenroom.web").setLevel(logging.ERROR)
    return create_app(url, secret)
