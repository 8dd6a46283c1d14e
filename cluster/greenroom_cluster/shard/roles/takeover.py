"""When a backup proposes to take over: after a grace in which it heard nothing, or of a primary known dead.

The grace (`HostSettings.grace_seconds`) begins when the last beacon was received. It outlasts the lease of
the primary, which began when that beacon was sent; `pairs.outgoing` tells why. A replica that became a backup
later waits for a whole grace of its own.
"""

from greenroom_cluster.shard.roles.replica import Replica
from greenroom_cluster.shard.roles.replicas import Replicas


def end_grace(
    _replicas: Replicas, replica: Replica, now_ns: int, _wall_us: int, sender: bytes, heard_ns: int
) -> bool:
    """Propose to take over if the primary was silent for the whole grace, or is known dead."""
    if sender in replica.context.dead:
        replica.become_fenced(now_ns, "primary known dead")
    elif now_ns - max(heard_ns, replica.since_ns) > replica.context.grace_ns:
        replica.become_fenced(now_ns, "primary silent for the grace")
    return True
