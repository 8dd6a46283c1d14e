# ruff: noqa: ANN001, ANN003, ANN202, SLF001  mutants reach into what they break, and are not typed code
"""Mutants of the proof that both sides of a connection know one secret."""

from greenroom.proofs import Challenge, NotProvenError, Proof
from greenroom_cluster.links.handshake import Door, Serve
from simulations.mutants.patching import Patches, mutant
from simulations.mutants.stories import INTRUDED


@mutant("takes a proof back that was its own", budget=20, plan=INTRUDED)
def _(patches: Patches) -> None:
    """A proof does not name its direction, so whoever dials sends back what the other side has proven."""
    original = Challenge._mac

    def mac(self, _direction, asked, answer):
        return original(self, "dials", asked, answer)

    patches.set(Challenge, "_mac", mac)


@mutant("takes any proof", budget=20, plan=INTRUDED)
def _(patches: Patches) -> None:
    """That a proof has come is enough; it is not looked at."""
    patches.set(Door, "proven", lambda _self, awaited, _proof: [Serve(awaited.agreement)])


@mutant("asks for a proof only where one is offered", budget=20, plan=INTRUDED)
def _(patches: Patches) -> None:
    """Who says nothing of a secret is served as without one."""
    original = Door.receive

    def receive(self, greeting, clock_us, challenge=None, **others):
        asked = challenge if greeting.auth else None
        return original(self, greeting, clock_us, challenge=asked, **others)

    patches.set(Door, "receive", receive)


@mutant("proves itself to anybody", budget=20, plan=INTRUDED)
def _(patches: Patches) -> None:
    """Who dials does not look at what the other side has proven."""
    original = Challenge.proof

    def proof(self, asked, answer):
        try:
            return original(self, asked, answer)
        except NotProvenError:
            return Proof(self._mac("dials", asked, answer))

    patches.set(Challenge, "proof", proof)
