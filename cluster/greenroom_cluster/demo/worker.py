"""One worker process of the shop: `uvicorn --factory greenroom_cluster.demo.worker:app`.

It is told everything by its environment: GREENROOM_URL names the store, GREENROOM_DEMO_PARENT the process
without which it must not go on living.
"""

import os

from starlette.applications import Starlette

import greenroom
from greenroom_cluster.demo.shop import create_app
from greenroom_cluster.runtime.processes import exit_with_parent

URL_VARIABLE = "GREENROOM_URL"
PARENT_VARIABLE = "GREENROOM_DEMO_PARENT"


def app() -> Starlette:
    """Return the shop over the store that GREENROOM_URL names.

    Raises UsageError if there is no such variable or its value is no store's URL.
    """
    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise greenroom.UsageError(
            f"set {URL_VARIABLE} to the store's URL, for example greenroom://127.0.0.1:7400"
        )
    if parent := os.environ.get(PARENT_VARIABLE):
        exit_with_parent(int(parent))
    return create_app(greenroom.store_from_url(url))
