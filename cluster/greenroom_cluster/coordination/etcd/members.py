"""Which member of etcd is asked next, how long it may be silent, and whether it may be believed. Pure."""

from collections.abc import Sequence

from greenroom_cluster.coordination.etcd.gateway import EtcdAwayError, Header
from greenroom_cluster.coordination.etcd.settings import TIMEOUT_SECONDS

PATIENCE_SECONDS = 0.3
"""So long a member may be silent where all answer soon; whoever asks one that is cut off loses that."""
_TIMES_AN_ANSWER = 3.0
_FORGOTTEN_PER_ANSWER = 0.2


class Members:
    """The members by their URLs: one is asked until it fails, then that whose failure is the longest ago.

    Remembers the id of the cluster and the newest term. A member that reports an older term is cut off from
    the others, and one of another cluster is not ours: neither is believed.

    A silent member is given up after `patience_seconds`, which follow what answers take, up to
    `patience_seconds_max`: from there they shrink while answers come soon, and silence doubles them. So
    members that are slow and alive are waited for, from the second or third request on.
    """

    def __init__(self, urls: Sequence[str], patience_seconds_max: float = TIMEOUT_SECONDS) -> None:
        self._urls = tuple(urls)
        self._index = 0
        self._cluster_id = 0
        self._term = 0
        self._patience_seconds = self._patience_seconds_max = patience_seconds_max

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def current(self) -> str:
        """The URL of the member to ask."""
        return self._urls[self._index]

    @property
    def patience_seconds(self) -> float:
        """How long to wait for the member that is asked now."""
        return self._patience_seconds

    def answered(self, seconds: float) -> None:
        """Note how long an answer took."""
        kept = self._patience_seconds * (1 - _FORGOTTEN_PER_ANSWER)
        wanted = max(PATIENCE_SECONDS, kept, _TIMES_AN_ANSWER * seconds)
        self._patience_seconds = min(wanted, self._patience_seconds_max)

    def silent(self, url: str) -> None:
        """Note that a member has not answered in time: it may be slow, or cut off. Another one is asked."""
        if url == self.current:
            self._patience_seconds = min(2 * self._patience_seconds, self._patience_seconds_max)
            self.failed(url)

    def failed(self, url: str) -> None:
        """Note that a member did not do what it should: another one is asked from now on."""
        if url == self.current:
            self._index = (self._index + 1) % len(self._urls)

    def heard(self, url: str, header: Header) -> None:
        """Take in who has answered. Raises EtcdAwayError if that may not be believed."""
        if not header.cluster_id:
            return
        if self._cluster_id and header.cluster_id != self._cluster_id:
            self.failed(url)
            raise EtcdAwayError(f"{url} belongs to another cluster of etcd: name only members of one")
        self._cluster_id = header.cluster_id
        if header.raft_term < self._term:
            self.failed(url)
            raise EtcdAwayError(f"{url} is behind the other members, or cut off from them")
        self._term = header.raft_term
