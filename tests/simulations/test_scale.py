"""What large clusters cost is computed with the real placement."""

from pathlib import Path

from simulations.studies import scale


def test_a_hundred_nodes_are_balanced_and_move_little(tmp_path: Path) -> None:
    size = scale.measure(100, 8192)
    assert size.replicas_most <= 1.26
    assert size.replicas_least >= 0.73
    for move in size.moves:
        assert move.least <= move.moved <= 1.3 * move.least + 5
    scale.draw([scale.measure(10, 1024), size], tmp_path / "scale.svg")
    assert "100 nodes" in (tmp_path / "scale.svg").read_text()
    assert "| 100 | a node joins |" in scale.as_table([size])
