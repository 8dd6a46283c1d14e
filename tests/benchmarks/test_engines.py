"""The comparison of engines writes every batch with all, and reports what it measured."""

from pathlib import Path

from benchmarks.engines import measure


def test_all_engines_are_timed(tmp_path: Path) -> None:
    row = measure(tmp_path, 400, 6)
    assert row.size_bytes == 400
    assert row.segment_us > 0
    assert row.sqlite_us > 0
    assert row.bare_us > 0
    assert row.ratio == row.segment_us / row.bare_us
    for name in ("400.log", "400.bare"):
        assert (tmp_path / name).stat().st_size > 6 * 400
