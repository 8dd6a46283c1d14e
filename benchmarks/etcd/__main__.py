"""Measure what the map costs in etcd: `python -m benchmarks.etcd recovery|map [--store etcd://...] [--json]`.

`recovery` runs the demo with its map in a file and in etcd in turns, about a minute a pair. `map` saves maps
of growing clusters. Both start one member of etcd on this host, unless --store names another etcd. Tables go
to stdout, progress to stderr; no file is written.
"""

import argparse
import signal
import sys
from contextlib import ExitStack

import msgspec

from benchmarks import machine
from benchmarks.etcd import recovery, single_map
from benchmarks.processes import MissingError
from benchmarks.results import BUSY
from benchmarks.servers.etcd import EtcdServer
from greenroom.errors import GreenroomError


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Parse the options, measure, print; return the exit status."""
    # So that what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.etcd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("recovery", "map"))
    parser.add_argument("--store", default="", help="an etcd that runs; without, one is started")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="recovery: begin no pair after these (default: 20)"
    )
    parser.add_argument("--runs", type=int, default=5, help="recovery: how many pairs (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="map: of changes for each size (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of tables")
    options = parser.parse_args()
    load = machine.load_average()
    if load > BUSY:
        _say("the machine is busy: wait until it is quiet for figures that count")
    try:
        with ExitStack() as stack:
            store = options.store or stack.enter_context(EtcdServer()).store
            if options.what == "map":
                costs = single_map.all_sizes(store, options.seconds, _say)
                shown: object = costs
                text = single_map.table(costs)
            else:
                pairs = recovery.in_pairs(store, options.runs, options.minutes, _say)
                shown, text = pairs, recovery.table(pairs)
    except (MissingError, GreenroomError, recovery.DemoFailedError) as error:
        _say(str(error))
        return 1
    print(msgspec.json.encode(shown).decode() if options.json else text)
    _say(f"load before: {load:.1f}, commit {machine.commit()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
