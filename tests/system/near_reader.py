"""A process that reads sessions again and again from its near cache, and says what it was shown when.

`python -m tests.system.near_reader URL ID...` prints "ready" once each session was read, reads on until its
input ends, and then prints one JSON object.
"""

import asyncio
import json
import sys
import time

from greenroom import ClusterStore, store_from_url

REST_SECONDS = 0.0005


async def read_all(store: ClusterStore, ids: list[str], over: asyncio.Event) -> dict[str, list[list[int]]]:
    """Return what was read of each session: when the read began and ended, and the version, 0 for none."""
    shown: dict[str, list[list[int]]] = {each: [] for each in ids}
    first = True
    while not over.is_set():
        for session_id in ids:
            began = time.monotonic_ns()
            found = await store.get(session_id)
            shown[session_id].append([began, time.monotonic_ns(), 0 if found is None else found.version])
        if first:
            print("ready", flush=True)
            first = False
        await asyncio.sleep(REST_SECONDS)
    return shown


async def main(url: str, ids: list[str]) -> None:
    """Read until the input ends."""
    store = store_from_url(url)
    assert isinstance(store, ClusterStore)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), over.set)
    async with store:
        shown = await read_all(store, ids, over)
        counts = store.near()
    print(json.dumps({"shown": shown, "hits": counts.hits, "invalidations": counts.invalidations}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
