"""What an actor answers when its supervisor asks how it does."""

from greenroom_cluster.metrics.core import tell_core
from greenroom_cluster.metrics.readings import NS, Readings
from greenroom_cluster.runtime.clocks import now_ns
from greenroom_cluster.runtime.connection_readings import tell_connections
from greenroom_cluster.runtime.driver import Driver
from greenroom_cluster.runtime.listener import Listener
from greenroom_cluster.shard.host import Host


def actor_readings(core: Host, driver: Driver, listener: Listener, slot: str) -> bytes:
    """Return all readings of an actor."""
    readings = Readings()
    driver.traffic.tell(readings)
    tell_core(readings, core.replicas, core.memory, slot, now_ns())
    readings.tell_each("greenroom_role_changes_total", driver.roles.changes)
    tell_connections(readings, listener)
    if (writer := driver.writer) is not None:
        readings.tell_spread("greenroom_disk_sync_seconds", writer.syncs, NS)
        readings.tell("greenroom_disk_log_bytes", writer.log_bytes)
        readings.tell("greenroom_disk_free_bytes", writer.free_bytes)
    return readings.encoded()
