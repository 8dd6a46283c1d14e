# ruff: noqa: ANN001, ANN202  mutants reach into what they break, and are not typed code
"""Mutants of tokens: somebody is served by one who must not be."""

from greenroom.tokens import id_in
from greenroom_cluster.links import handshake
from greenroom_cluster.tokens.table import Denied, TokenTable, Uncertified
from simulations.mutants.patching import Patches, mutant
from simulations.mutants.stories import STOLEN


@mutant("takes a token in plaintext", budget=20, plan=STOLEN)
def _(patches: Patches) -> None:
    """That a connection is not of TLS makes no difference to who has the right token."""
    patches.set(Uncertified, "judge", lambda self, shown: self.tokens.judge(shown, self.wall_seconds))


@mutant("serves who shows neither certificate nor token", budget=20, plan=STOLEN)
def _(patches: Patches) -> None:
    """Who shows nothing within TLS is taken for one of those who need not, as in plaintext."""
    original = Uncertified.judge
    patches.set(Uncertified, "judge", lambda self, shown: original(self, shown) if shown else None)


@mutant("lets a token speak as a peer", budget=20, plan=STOLEN)
def _(patches: Patches) -> None:
    """The role of a hello is compared with certificates only."""
    original = handshake.objection

    def objection(cluster, greeting, identity, shown="certificate"):
        return original(cluster, greeting, identity, shown) if shown == "certificate" else ""

    patches.set(handshake, "objection", objection)


@mutant("takes a token with an unknown id", budget=20, plan=STOLEN)
def _(patches: Patches) -> None:
    """What is not in the table is compared with nothing."""
    original = TokenTable.judge

    def judge(self, shown, wall_seconds):
        judged = original(self, shown, wall_seconds)
        if isinstance(judged, Denied) and id_in(shown) and id_in(shown) not in self._bearers:
            return next(iter(self._bearers.values()), judged)
        return judged

    patches.set(TokenTable, "judge", judge)


@mutant("goes by the id of a token alone", budget=20, plan=STOLEN)
def _(patches: Patches) -> None:
    """The digests are not compared."""
    original = TokenTable.judge

    def judge(self, shown, wall_seconds):
        known = self._bearers.get(id_in(shown))
        if known is None or self.objection(known, wall_seconds):
            return original(self, shown, wall_seconds)
        return known

    patches.set(TokenTable, "judge", judge)


@mutant("serves on who has a revoked token", budget=20, plan=STOLEN)
def _(patches: Patches) -> None:
    """A token is judged as a connection begins, and never again."""
    original = TokenTable.objection

    def objection(self, bearer, wall_seconds):
        return original(self, bearer, wall_seconds) if self._bearers.get(bearer.token_id) is bearer else ""

    patches.set(TokenTable, "objection", objection)


@mutant("takes a revoked token", budget=20, plan=STOLEN)
def _(patches: Patches) -> None:
    """Open connections end, and new ones are served."""
    original = TokenTable.judge

    def judge(self, shown, wall_seconds):
        judged = original(self, shown, wall_seconds)
        known = self._bearers.get(id_in(shown))
        return known if isinstance(judged, Denied) and known is not None and not judged.guessed else judged

    patches.set(TokenTable, "judge", judge)
