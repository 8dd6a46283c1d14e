"""What a process tells of the connections to its listener."""

from greenroom_cluster.metrics.readings import Readings
from greenroom_cluster.runtime.listener import Listener
from greenroom_cluster.runtime.refusals import refused


def tell_connections(readings: Readings, listener: Listener) -> None:
    """Add how many are open, and how many this process has refused."""
    readings.tell_each("greenroom_connections", listener.served)
    readings.tell_each("greenroom_connections_refused_total", refused)
