"""The coordinators as one actor knows them, for an operator."""

import msgspec


class KnownCoordinators(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`address` is the one that it is connected to, or was last, if any. It was given `others`.

    `farewell` is the code by which the last one has said why it serves no more; empty if it has not.
    """

    address: str = ""
    others: tuple[str, ...] = ()
    farewell: str = ""
