"""How a new authority takes the place of the former one, in three steps that have one order.

1. `trust-both`: a new authority is made, and holders trust both; the former still issues.
2. `issue-from-new`: the new one issues; every holder gets a certificate of it.
3. `drop-old`: holders trust the new one only.

So at no time does a holder meet a certificate of an authority that it does not trust, if the trusted file is
with all holders before the next step. Pure.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import msgspec

from greenroom.errors import UsageError

Step: TypeAlias = Literal["trust-both", "issue-from-new", "drop-old"]
STEPS: tuple[Step, ...] = get_args(Step)


class OwnAuthorities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key ids of one's own authorities: those that holders trust, oldest first, and which one issues."""

    trusted: tuple[str, ...]
    issuing: str

    def __post_init__(self) -> None:
        if len(self.trusted) not in {1, 2} or len(set(self.trusted)) != len(self.trusted):
            raise ValueError("one authority is trusted, or two during a rotation")
        if self.issuing not in self.trusted:
            raise ValueError("the authority that issues must be one of those that are trusted")

    @property
    def next_step(self) -> Step:
        """The only step that can be taken now."""
        if len(self.trusted) == 1:
            return "trust-both"
        return "issue-from-new" if self.issuing == self.trusted[0] else "drop-old"

    def check(self, step: Step) -> None:
        """Raise UsageError, saying what comes next, unless this step can be taken now."""
        if step == self.next_step:
            return
        now = {
            "trust-both": "no rotation has begun",
            "issue-from-new": "holders trust both authorities, and the former issues",
            "drop-old": "the new authority issues, and the former is still trusted",
        }[self.next_step]
        raise UsageError(
            f"{step} does not come next: {now}; next is `greenroom certs rotate-ca {self.next_step}`"
        )

    def trust_both(self, new: str) -> "OwnAuthorities":
        """Have holders trust a new authority too."""
        self.check("trust-both")
        return OwnAuthorities((*self.trusted, new), self.issuing)

    def issue_from_new(self) -> "OwnAuthorities":
        """Have the new authority issue."""
        self.check("issue-from-new")
        return OwnAuthorities(self.trusted, self.trusted[-1])

    def drop_old(self, still_used: Sequence[str]) -> "OwnAuthorities":
        """Have holders trust the new authority only.

        Raises UsageError if the last valid certificates of some identities are of the former.
        """
        self.check("drop-old")
        if still_used:
            raise UsageError(
                f"the last certificates of {', '.join(still_used)} are of the former authority: renew them "
                "with `greenroom certs renew`, or revoke those that nobody uses"
            )
        return OwnAuthorities(self.trusted[-1:], self.issuing)
