"""The greeting of a connection: what each side says first, and whether they can work together."""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TypeAlias

import msgspec

from greenroom import wire
from greenroom.identities import Identity, IdentityRole
from greenroom.negotiation import Agreement, agree, hello, versions_text
from greenroom.proofs import NOT_PROVEN, Challenge, NotProvenError, Proof, asks
from greenroom.tokens import Shown
from greenroom_cluster.links.places import BY_SECRET
from greenroom_cluster.tokens.table import PLAINTEXT, Bearer, Denied, Uncertified

IDENTITY_BYTES = 16

ROLES: Mapping[IdentityRole, frozenset[str]] = {
    "node": frozenset({wire.ROLE_PEER, wire.ROLE_ADMIN}),
    "coordinator": frozenset({wire.ROLE_ADMIN}),
    "client": frozenset({wire.ROLE_CLIENT}),
    "operator": frozenset({wire.ROLE_OPERATOR, wire.ROLE_ADMIN}),
    "observer": frozenset({wire.ROLE_ADMIN}),
}
"""The roles of a hello that each kind of certificate allows.

A coordinator reads the maps of nodes. A node looks at all actors, for its HTTP port shows the whole cluster.
"""

NOT_ALLOWED = wire.Goodbye(
    "not-allowed",
    "the certificate or token shown, or the secret proven, does not allow this; the log of who refuses says "
    "why",
)

SECRET_REQUIRED = wire.Goodbye(
    "secret-required",
    "only who proves that it knows the secret of this cluster is served here: run as the same user, or name "
    "the file of the secret with --secret-file, in a store with the option secret_file",
)

TLS_REQUIRED = wire.Goodbye(
    "tls-required",
    "only TLS is spoken here: connect with greenrooms:// or with the options --tls-cert, "
    "--tls-key and --tls-ca",
)


def objection(cluster: str, greeting: wire.Hello, identity: Identity, shown: str = "certificate") -> str:
    """Return why who has shown a certificate, or a token, may not say this hello; empty if it may."""
    if identity.cluster != cluster:
        return f"the {shown} of {identity.uri} is for another cluster"
    if greeting.role not in ROLES[identity.role]:
        return f"the {shown} of {identity.uri} does not allow the role {greeting.role}"
    return ""


def stamped(greeting: wire.Hello, identity: Identity | None) -> tuple[bytes, str]:
    """Return by which id a client is known, and its namespace, from who has proven to be there.

    Its own id it can make up. So one with an identity is known by an id that no other identity has.
    """
    if identity is None:
        return greeting.sender, ""
    person = blake2b(identity.uri.encode(), digest_size=IDENTITY_BYTES).digest()
    return blake2b(greeting.sender, digest_size=IDENTITY_BYTES, key=person).digest(), identity.namespace


class Serve(msgspec.Struct, frozen=True):
    """Serve the connection; from now on both sides speak by this agreement. `bearer` has shown a token.

    `holder` is whom its place is counted for; empty if nobody has proven anything.
    """

    agreement: Agreement
    bearer: Bearer | None = None
    holder: str = ""


class Say(msgspec.Struct, frozen=True):
    """Send this greeting."""

    greeting: wire.Hello | wire.Goodbye


class AwaitProof(msgspec.Struct, frozen=True):
    """Give the next frame to `Door.proven`, with this. It must be a `Proof`; nothing else is taken before."""

    challenge: Challenge
    asked: wire.Hello
    answer: wire.Hello
    agreement: Agreement


class Tell(msgspec.Struct, frozen=True):
    """Send this, after our hello."""

    message: wire.Goodbye


class Finish(msgspec.Struct, frozen=True):
    """End the connection once the goodbye is delivered: a reset could overtake it.

    `detail` is for our own log: why, and what to do. The other side is not told why it may not do something.
    `guessed`: it may have been looking for a token.
    """

    code: str
    detail: str = ""
    guessed: bool = False


Refusing: TypeAlias = Callable[[str, str], wire.Goodbye | None]
"""Says what one more connection is told, by its role and holder, if there is no place for it."""
DoorEffect: TypeAlias = Serve | Say | AwaitProof | Tell | Finish


class Door(msgspec.Struct, frozen=True):
    """The answers of a listening process to hellos. `identity` is its own.

    `roles` are those that it serves, each with whether its hello must name the identity that it means.
    Holders of certificates in the roles `refused` are not served, whatever their hello says.
    """

    cluster: str
    identity: bytes
    roles: Mapping[str, bool]
    refused: frozenset[IdentityRole] = frozenset()

    def receive(
        self,
        greeting: wire.Hello,
        clock_us: int,
        crowded: Refusing = lambda _role, _holder: None,
        identity: Identity | None = None,
        challenge: Challenge | None = None,
        uncertified: Uncertified = PLAINTEXT,
    ) -> list[DoorEffect]:
        """Return what a hello leads to, in order.

        `identity` is who has proven to be there by a certificate. If nobody has, `uncertified` says who its
        token belongs to; without TLS, a secret may have to be proven, by `challenge`.
        """
        bearer = uncertified.judge(greeting.auth) if identity is None else None
        if isinstance(bearer, Denied):
            return [Say(NOT_ALLOWED), Finish(NOT_ALLOWED.code, bearer.reason, bearer.guessed)]
        shown = "certificate"
        if bearer is not None:
            identity, shown = bearer.identity, f"token {bearer.token_id}"
        if identity is not None and (detail := self._objection(greeting, identity, shown)):
            return [Say(NOT_ALLOWED), Finish(NOT_ALLOWED.code, detail)]
        proves = identity is None and challenge is not None and asks(greeting)
        holder = BY_SECRET if proves else "" if identity is None else identity.uri
        judged = self.judge(greeting)
        if isinstance(judged, Agreement):
            judged = crowded(greeting.role, holder) or judged
        if isinstance(judged, wire.Goodbye):
            return [Say(judged), Finish(judged.code, judged.message)]
        welcome = self.welcome(clock_us)
        if identity is not None or challenge is None:
            return [Serve(judged, bearer, holder), Say(welcome)]
        if proves:
            answer = challenge.answering(greeting, welcome)
            return [Say(answer), AwaitProof(challenge, greeting, answer, judged)]
        if challenge.required:
            return [Say(SECRET_REQUIRED), Finish(SECRET_REQUIRED.code, SECRET_REQUIRED.message)]
        return [Serve(judged), Say(welcome)]

    def _objection(self, greeting: wire.Hello, identity: Identity, shown: str) -> str:
        detail = objection(self.cluster, greeting, identity, shown)
        if not detail and identity.role in self.refused:
            return f"the {shown} of {identity.uri} is for other servers than this"
        return detail

    def proven(self, awaited: AwaitProof, proof: Proof) -> list[DoorEffect]:
        """Return what the proof of who dialled leads to."""
        if awaited.challenge.accepts(awaited.asked, awaited.answer, proof):
            return [Serve(awaited.agreement, holder=BY_SECRET)]
        return [Tell(NOT_ALLOWED), Finish(NOT_ALLOWED.code, "it does not know the secret of this cluster")]

    def judge(self, greeting: wire.Hello) -> Agreement | wire.Goodbye:
        """Return the agreement with the sender of this hello, or the reason to refuse it."""
        ours = self.welcome()
        agreement = agree(ours, greeting)
        if agreement is None:
            return wire.Goodbye(
                "wrong-protocol",
                f"this side speaks protocol version {versions_text(ours)}, the other "
                f"{versions_text(greeting)}; install matching versions",
            )
        if greeting.routing != wire.ROUTING_VERSION:
            return wire.Goodbye(
                "wrong-routing",
                f"this side routes by version {wire.ROUTING_VERSION}; install matching versions",
            )
        if greeting.cluster != self.cluster:
            return wire.Goodbye(
                "wrong-cluster", "another cluster is served here; check the address and the cluster name"
            )
        if greeting.role not in self.roles:
            return wire.Goodbye(
                "wrong-role", f"only {', '.join(sorted(self.roles))} connections are served here"
            )
        if greeting.target != self.identity and (greeting.target or self.roles[greeting.role]):
            return wire.Goodbye("wrong-target", "another process answers here now; follow the cluster map")
        if len(greeting.sender) != IDENTITY_BYTES:
            return wire.Goodbye("wrong-sender", f"the sender must be {IDENTITY_BYTES} random bytes")
        return agreement

    def welcome(self, clock_us: int = 0) -> wire.Hello:
        """Return the answer to a hello that is accepted."""
        return hello(self.cluster, wire.ROLE_PEER, self.identity, clock_us=clock_us)


class Refusal(msgspec.Struct, frozen=True):
    """The reason why a dialled connection cannot be used; `code` is that of a `Goodbye`."""

    code: str
    reason: str


class Accepted(msgspec.Struct, frozen=True):
    """A dialled connection can be used; `answer` is the other side's hello.

    A `proof` has to be sent before anything else.
    """

    answer: wire.Hello
    agreement: Agreement
    proof: Proof | None = None


def judge(
    ours: wire.Hello, answer: wire.Hello | wire.Goodbye, challenge: Shown | None = None
) -> Accepted | Refusal:
    """Return what an answer to our hello means for the connection on which it came.

    With a `challenge`, our hello was that of `Challenge.asking`.
    """
    if isinstance(answer, wire.Goodbye):
        return Refusal(answer.code, f"refused: {answer.message} ({answer.code})")
    if ours.target and answer.sender != ours.target:
        # No greenroom says hello to what is meant for another: this is somebody who took its port.
        return Refusal("wrong-target", "is where another process answers now")
    agreement = agree(ours, answer)
    if agreement is None:
        return Refusal(
            "wrong-protocol",
            f"speaks protocol version {versions_text(answer)}, this side {versions_text(ours)}; install "
            "matching versions",
        )
    if challenge is None:
        return Accepted(answer, agreement)
    try:
        return Accepted(answer, agreement, challenge.proof(ours, answer))
    except NotProvenError as error:
        return Refusal(NOT_PROVEN, f"is not spoken to: {error}")
