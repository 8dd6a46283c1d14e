"""Who must answer."""

import pytest

from greenroom.identities import parse_identity
from greenroom.tls.demands import Demand, node_of


@pytest.mark.parametrize(
    ("uri", "demand", "meant"),
    [
        ("greenroom://shop/node/n1", node_of("shop"), True),
        ("greenroom://shop/node/n1", node_of("shop", "n1"), True),
        ("greenroom://shop/node/n1", node_of("shop", "n2"), False),
        ("greenroom://mall/node/n1", node_of("shop"), False),
        ("greenroom://shop/client/n1", node_of("shop", "n1"), False),
        ("greenroom://shop/coordinator/c", node_of("shop"), False),
        ("greenroom://shop/coordinator/c", Demand("shop", ("node", "coordinator")), True),
    ],
)
def test_only_who_is_meant_may_answer(uri: str, demand: Demand, *, meant: bool) -> None:
    refusal = demand.refusal(parse_identity(uri))
    assert (refusal == "") is meant
    assert meant or uri in refusal


@pytest.mark.parametrize("there", ["shop", "mall"])
def test_only_another_cluster_is_answered_with_the_option_that_names_it(there: str) -> None:
    refusal = node_of("shop", "n1").refusal(parse_identity(f"greenroom://{there}/node/n2"))
    assert ("the cluster 'mall' is meant, name it with --cluster" in refusal) is (there == "mall")
