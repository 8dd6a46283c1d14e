"""The comparison of engines writes every batch with both, and reports what it measured."""

from pathlib import Path

from benchmarks.engines import measure


def test_both_engines_are_timed(tmp_path: Path) -> None:
    row = measure(tmp_path, 400, 6)
    assert row.size_bytes == 400
    assert row.segment_us > 0
    assert row.bare_us > 0
    assert row.ratio == row.segment_us / row.bare_us
    assert (tmp_path / "400.bare").stat().st_size > 6 * 400
