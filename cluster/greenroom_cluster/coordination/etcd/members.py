"""Which member of etcd is asked next, and whether what it says may be believed. Pure."""

from collections.abc import Sequence

from greenroom_cluster.coordination.etcd.gateway import EtcdAwayError, Header


class Members:
    """The members by their URLs: one is asked until it fails, then the next.

    Remembers the id of the cluster and the newest term. A member that reports an older term is cut off from
    the others, and one of another cluster is not ours: neither is believed.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = tuple(urls)
        self._index = 0
        self._cluster_id = 0
        self._term = 0

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def current(self) -> str:
        """The URL of the member to ask."""
        return self._urls[self._index]

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
