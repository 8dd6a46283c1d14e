"""The options of the demo."""

from typing import get_args

import msgspec

from greenroom.errors import UsageError
from greenroom_cluster.config import Durability
from greenroom_cluster.etcd_options import EtcdOptions

SECONDS = 18.0
SECONDS_MIN = 8.0
SECONDS_MAX = 600.0
BROWSERS = 24
BROWSERS_MAX = 200


class DemoSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` of shopping, besides starting and checking, by `browsers` at once, with dice from `seed`.

    With a `durability` there is one more act, in which everything is killed at once. With a `store`, where
    etcd keeps the map of two coordinators, there is one in which the one that leads is killed. With `tls` all
    processes of the cluster, and the shop's, have certificates that are made for this run.
    """

    seconds: float = SECONDS
    browsers: int = BROWSERS
    seed: int = 0
    durability: Durability = "none"
    store: str = ""
    tls: bool = False

    @property
    def etcd(self) -> EtcdOptions:
        """The options of etcd."""
        return EtcdOptions(store=self.store)

    def check(self) -> None:
        """Raise UsageError, naming the option, if something cannot be."""
        self.etcd.check()
        if not SECONDS_MIN <= self.seconds <= SECONDS_MAX:
            raise UsageError(
                f"--seconds must be {SECONDS_MIN:g} to {SECONDS_MAX:g}, so that there is time for two kills; "
                f"it is {self.seconds:g}"
            )
        if not 1 <= self.browsers <= BROWSERS_MAX:
            raise UsageError(f"--browsers must be 1 to {BROWSERS_MAX}; it is {self.browsers}")
        if self.durability not in get_args(Durability):
            modes = " or ".join(get_args(Durability))
            raise UsageError(f"--durability must be {modes}; it is {self.durability}")
