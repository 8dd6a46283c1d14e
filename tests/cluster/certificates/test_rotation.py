"""The three steps from one authority to the next have one order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.errors import UsageError
from greenroom_cluster.certificates.rotation import STEPS, OwnAuthorities, Step


def take(state: OwnAuthorities, step: Step, new: str) -> OwnAuthorities:
    if step == "trust-both":
        return state.trust_both(new)
    return state.issue_from_new() if step == "issue-from-new" else state.drop_old([])


@given(st.lists(st.sampled_from(STEPS), max_size=12))
def test_steps_follow_each_other_and_no_other_order(steps: list[Step]) -> None:
    """Holders of a certificate trust its authority before it issues, and until all have another."""
    state = OwnAuthorities(("a0",), "a0")
    done = 0
    for number, step in enumerate(steps, 1):
        if step != STEPS[done % 3]:
            with pytest.raises(UsageError, match=f"rotate-ca {STEPS[done % 3]}"):
                take(state, step, f"a{number}")
            continue
        former, state = state, take(state, step, f"a{number}")
        done += 1
        assert state.issuing in former.trusted
        assert former.issuing in state.trusted or step == "drop-old"
    assert len(state.trusted) == (1 if done % 3 == 0 else 2)


def test_authority_that_is_still_used_is_not_dropped() -> None:
    state = OwnAuthorities(("a", "b"), "b")
    with pytest.raises(UsageError, match=r"greenroom://shop/node/n1 .*renew"):
        state.drop_old(["greenroom://shop/node/n1 (0A)"])
    assert state.drop_old([]) == OwnAuthorities(("b",), "b")


@pytest.mark.parametrize("trusted", [(), ("b",), ("a", "b", "c"), ("a", "a")])
def test_impossible_states_are_refused(trusted: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="authorit"):
        OwnAuthorities(trusted, "a")
