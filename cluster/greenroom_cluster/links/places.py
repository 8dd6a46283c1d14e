"""The places of a listener: how many connections it serves, and how many of one holder. Pure.

A holder is whom a certificate or token belongs to, however many of these it has. Clients have places of their
own, of which one holder may have so many, and never the last quarter, however few there are: others find a
place. Whoever has proven to know the secret of loopback counts as one holder; where nothing but that is
proven there is no other, so nothing is kept free. Whoever has proven nothing is nobody in particular: only
the bound of all clients holds.

Of the room beside the clients one holder may have a part too, for peers need the rest. Peers are not counted:
each actor has connections to all others.
"""

from collections import Counter

from greenroom import wire

TOO_MANY = "too-many-connections"
TOO_MANY_OF_ONE = "too-many-of-identity"
IDENTITY_CONNECTIONS_MAX = 2_000
BESIDE_MAX = 64
"""How many connections of one holder that are no client's."""
OPTION = "--identity-connections-max"
BY_SECRET = "the secret of loopback"  # noqa: S105  a name
"""The holder that all are who have proven to know it."""


class Places:
    """Counts the connections that are served. `scarce`: open files bound the clients, not a setting.

    `several`: there may be several holders, since TLS is spoken.
    """

    def __init__(
        self,
        clients_max: int,
        of_one_max: int = IDENTITY_CONNECTIONS_MAX,
        *,
        several: bool = False,
        scarce: bool = False,
    ) -> None:
        self.served: Counter[str] = Counter()
        """How many connections are served, by the role of their hello."""
        self._of_one: Counter[tuple[bool, str]] = Counter()
        self._clients_max = clients_max
        most = max(1, clients_max - -(-clients_max // 4)) if several else clients_max
        self._of_one_max = min(of_one_max, most)
        or_raise = ", or raise its limit of open files (ulimit -n)" if scarce else ""
        self.full = wire.Goodbye(
            TOO_MANY,
            f"this process serves {clients_max} clients already, one for each event loop with a store: run "
            f"fewer{or_raise}",
        )
        """What clients are told if there is no place left."""
        self._mend = f", or raise {OPTION}" if of_one_max <= most else or_raise

    def refusal(self, role: str, holder: str) -> wire.Goodbye | None:
        """Return what to tell one more connection in this role, if it finds no place; None if it does."""
        if role == wire.ROLE_PEER:
            return None
        is_client = role == wire.ROLE_CLIENT
        if is_client and self.served[role] >= self._clients_max:
            return self.full
        most = self._of_one_max if is_client else BESIDE_MAX
        if not holder or self._of_one[is_client, holder] < most:
            return None
        if is_client:
            what = f"clients of {holder} already, one for each event loop with a store: run fewer{self._mend}"
        else:
            what = f"connections of {holder} already that are no client's: close some"
        return wire.Goodbye(TOO_MANY_OF_ONE, f"this process serves {most} {what}")

    def take(self, role: str, holder: str) -> None:
        """Note that a connection is served."""
        self.served[role] += 1
        if holder and role != wire.ROLE_PEER:
            self._of_one[role == wire.ROLE_CLIENT, holder] += 1

    def give_back(self, role: str, holder: str) -> None:
        """Note that it is no more."""
        self.served[role] -= 1
        if holder and role != wire.ROLE_PEER:
            account = role == wire.ROLE_CLIENT, holder
            self._of_one[account] -= 1
            if not self._of_one[account]:
                del self._of_one[account]
