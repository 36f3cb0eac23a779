"""What is known of all partitions of a snapshot, from the notes in their files: nothing is re-read.

The checks judge it. It covers every partition up to a number of them, so that a step of a dataset
with a hundred thousand does not end with a minute of reading.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ondine_dagster.assets.audit.verify import Drift, read_drift
from ondine_dagster.assets.shared.partition_counts import COSTS, TRIO
from ondine_dagster.assets.shared.partitions import open_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.status import (
    DatasetStatus,
    PartitionState,
    PartitionStatus,
    dataset_status,
)
from ondine_dagster.assets.verdicts import field_counts
from ondine_dagster.assets.verdicts.field_counts import FieldCounts
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.parquet_files import read_end
from ondine_dagster.storage.snapshot import Snapshot

# a second or two per thousand
_MOST = 5_000
_NO_FILES = (PartitionState.MISSING, PartitionState.CHANGED)
_Ends = Mapping[str, tuple[Mapping[str, str], int]]  # partition -> notes, rows


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """One partition. `written` are the rows of its files, None where it has none of these rows.

    `cost` (picodollars) is what asking `asked` rows took in the run that wrote it, `expected` what
    the plan expected; `why` is why rows wait.
    """

    status: PartitionStatus
    written: int | None = None
    fields: Mapping[str, FieldCounts] = field(default_factory=dict)
    cost: int = 0
    asked: int = 0
    expected: int = 0
    why: str = ""

    @property
    def key(self) -> str:
        """Return the partition's key."""
        return self.status.partition


@dataclass(frozen=True, slots=True)
class Facts:
    """A dataset: how many partitions it has, and those that were looked at, in order."""

    pipeline: Pipeline
    count: int
    status: DatasetStatus
    partitions: tuple[PartitionFacts, ...]
    drift: Drift | None = None

    @property
    def covers(self) -> str:
        """Return which partitions were looked at."""
        looked, there = len(self.partitions), self.count
        if looked >= there:
            return f"all {looked:,} partitions of the snapshot"
        return f"{looked:,} of {there:,} partitions: those of this step, and others"


def read_facts(
    pipeline: Pipeline, lake: Lake, snapshot: Snapshot, step: Collection[str] = ()
) -> Facts:
    """Read the notes of the snapshot's partitions, those of `step` in any case.

    A window of time that has not ended is left out. Raises OndineError for a damaged file.
    """
    closed = closed_keys(pipeline, snapshot)
    covered = _covered(closed, frozenset(step))
    ends = {asset: _read_ends(lake, pipeline.name, asset, covered) for asset in TRIO}

    def read(
        lake: Lake, dataset: str, asset: str, keys: Sequence[str], names: Sequence[str]
    ) -> dict[str, Mapping[str, str]]:
        return {key: ends[asset][key][0] for key in keys if key in ends[asset]}

    status = dataset_status(pipeline, lake, snapshot, covered, read)
    partitions = tuple(_facts(ends, one) for one in status.partitions)
    return Facts(pipeline, len(closed), status, partitions, read_drift(lake, pipeline.name))


def closed_keys(pipeline: Pipeline, snapshot: Snapshot) -> list[str]:
    """Return the partitions whose rows are all there: not of a window that goes on."""
    still_open = open_keys(pipeline, snapshot)
    return [one.key for one in snapshot.partitions if one.key not in still_open]


def _covered(keys: Sequence[str], step: frozenset[str]) -> frozenset[str]:
    others = [key for key in keys if key not in step]
    return step | frozenset(others[: max(0, _MOST - len(step))])


def _read_ends(lake: Lake, dataset: str, asset: str, keys: Iterable[str]) -> _Ends:
    """Return notes and number of rows of the files that there are, each read once."""
    files = ((key, lake.path(dataset, asset, key)) for key in keys)
    return {key: read_end(file) for key, file in files if file.is_file()}


def _facts(ends: Mapping[str, _Ends], status: PartitionStatus) -> PartitionFacts:
    if status.state in _NO_FILES:
        return PartitionFacts(status)
    (costs, _), (notes, results), (_, rejected) = (ends[asset][status.partition] for asset in TRIO)
    cost, asked, expected, why = (costs.get(one, "") for one in COSTS)
    return PartitionFacts(
        status,
        written=results + rejected,
        fields=field_counts.from_note(notes.get(field_counts.NOTE)),
        cost=int(cost or 0),
        asked=int(asked or 0),
        expected=int(expected or 0),
        why=why,
    )
