"""What namespaces have in a cluster, put together from the words of its actors."""

from collections.abc import Iterable, Sequence

import msgspec

from greenroom.identities import DEFAULT_NAMESPACE
from greenroom.namespace_use import NamespaceUse
from greenroom_cluster.quotas import QUOTAS_FLAG


class NamespaceStatus(msgspec.Struct, frozen=True):
    """One namespace: its sessions in the cluster, and their bytes as they are stored, each counted once.

    `sessions_max` and `stored_bytes_max` are its quota, None without one, the largest where the nodes of the
    actors `apart` have others than the rest. `refused`: it was refused a write for that within the last
    minute.
    """

    namespace: str
    sessions: int
    stored_bytes: int
    sessions_max: int | None = None
    stored_bytes_max: int | None = None
    refused: bool = False
    apart: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """Return lines for an operator."""
        told = []
        if self.refused:
            told.append(
                f"namespace {self.namespace} is at its quota and was refused writes within the last minute: "
                f"end sessions of its apps, or raise {QUOTAS_FLAG} at all nodes"
            )
        if self.apart:
            told.append(
                f"actors disagree on the quota of namespace {self.namespace}: {', '.join(self.apart)} and "
                f"the others have different ones; give all nodes the same {QUOTAS_FLAG}"
            )
        return told


def namespaces_of(told: Iterable[tuple[str, Sequence[NamespaceUse]]]) -> tuple[NamespaceStatus, ...]:
    """Return all namespaces, `default` first, from what actors, named by their slots, tell of their own."""
    uses: dict[str, list[tuple[str, NamespaceUse]]] = {}
    for slot, each in sorted(told, key=lambda pair: pair[0]):
        for use in each:
            uses.setdefault(use.namespace, []).append((slot, use))
    order = sorted(uses, key=lambda name: (name != DEFAULT_NAMESPACE, name))
    return tuple(_sum(name, uses[name]) for name in order)


def _sum(namespace: str, uses: Sequence[tuple[str, NamespaceUse]]) -> NamespaceStatus:
    quotas = [(use.sessions_max, use.stored_bytes_max) for _, use in uses]
    usual = max(quotas, key=lambda quota: (quotas.count(quota), quota))
    largest = max(quotas)
    return NamespaceStatus(
        namespace,
        sum(use.sessions for _, use in uses),
        sum(use.stored_bytes for _, use in uses),
        largest[0] or None,
        largest[1] or None,
        any(use.refused for _, use in uses),
        tuple(slot for (slot, _), quota in zip(uses, quotas, strict=True) if quota != usual),
    )
