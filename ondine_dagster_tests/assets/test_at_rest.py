"""What lies on the disk after a run: where, and who may read it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ondine_dagster_tests.workbench import MakeBench, numbered

OUTSIDE = "../../../outside"


def files_of(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.behaviour("A-12")
def test_a_run_writes_into_the_data_folder_only_and_for_its_owner_only(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    """Also where keys of rows and partitions look like paths."""
    rows = [{**row, "kind": OUTSIDE, "id": f"{OUTSIDE}/{row['id']}"} for row in numbered(4)]
    bench = make_bench(rows, partitions={"values": {"column": "kind"}})
    before = files_of(tmp_path)
    bench.snapshot()
    assert bench.run().success
    bench.report()
    assert len(bench.rows("results")) == 4
    new = files_of(tmp_path) - before
    assert len(new) > 15
    assert {path for path in new if not path.is_relative_to(bench.data)} <= {bench.data}
    open_to_others = [
        path.relative_to(tmp_path)
        for path in (*new, bench.data)
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert not open_to_others
