"""Where each partition of a dataset stands, read from the lake: no Dagster, no ledger, no money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ondine_dagster.assets.partition_counts import REJECTED, RESPONSES, RESULTS
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.snapshot import PartitionInfo


class PartitionState(StrEnum):
    """What a partition needs; `run` picks by it."""

    DONE = "done"
    MISSING = "missing"  # never finished
    FAILED = "failed"  # red: rows wait for another run
    CHANGED = "changed"  # its rows are others than those in its files: treated as missing
    UNPARSED = "unparsed"  # a local setting changed: parsed again for nothing
    STALE = "stale"  # prompt, model or schema changed: only `--all` pays for it


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition; counts are those of its files (0 where there are none)."""

    partition: str
    state: PartitionState
    rows: int
    results: int
    rejected: int
    waiting: int


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """All partitions of the current snapshot, in order."""

    dataset: str
    partitions: tuple[PartitionStatus, ...]

    @property
    def rows(self) -> int:
        """Return the rows of the snapshot."""
        return sum(one.rows for one in self.partitions)

    @property
    def results(self) -> int:
        """Return the rows with a result."""
        return sum(one.results for one in self.partitions)

    @property
    def rejected(self) -> int:
        """Return the rows that were rejected or wait in a red partition's file."""
        return sum(one.rejected for one in self.partitions)

    @property
    def waiting(self) -> int:
        """Return the rows that wait for another run."""
        return sum(one.waiting for one in self.partitions)

    def in_state(self, *states: PartitionState) -> list[str]:
        """Return the partitions in one of `states`, in order."""
        return [one.partition for one in self.partitions if one.state in states]


def dataset_status(pipeline: Pipeline, lake: Lake) -> DatasetStatus:
    """Return where each partition of the current snapshot stands.

    Raises OndineError where no snapshot was taken yet.
    """
    snapshot = pipeline.snapshot(lake)
    return DatasetStatus(
        pipeline.name,
        tuple(_partition(pipeline, lake, info) for info in snapshot.partitions),
    )


def _partition(pipeline: Pipeline, lake: Lake, info: PartitionInfo) -> PartitionStatus:
    name, key = pipeline.name, info.key
    if not all(lake.exists(name, asset, key) for asset in (RESPONSES, RESULTS, REJECTED)):
        return PartitionStatus(key, PartitionState.MISSING, info.rows, 0, 0, info.rows)
    noted = lake.metadata(name, RESULTS, key)
    current = noted["ondine.content_hash"] == info.content_hash
    rows, results = int(noted["ondine.rows"]), int(noted["ondine.results"])
    unanswered = int(noted["ondine.unanswered"])
    if not current:  # what its files say is about other rows
        return PartitionStatus(key, PartitionState.CHANGED, info.rows, 0, 0, info.rows)
    state = _state(pipeline, noted)
    waiting = unanswered
    return PartitionStatus(key, state, info.rows, results, rows - results, waiting)


def _state(pipeline: Pipeline, noted: dict[str, str]) -> PartitionState:
    if noted["ondine.question_version"] != pipeline.question_version:
        return PartitionState.STALE
    if noted["ondine.red"] == "true":
        return PartitionState.FAILED
    if noted["ondine.local_version"] != pipeline.local_version:
        return PartitionState.UNPARSED
    return PartitionState.DONE


def contiguous(wanted: Sequence[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """Group `wanted` into ranges of neighbours in `order`: a run takes one range."""
    place = {key: index for index, key in enumerate(order)}
    ranges: list[tuple[str, str]] = []
    last = None
    for key in sorted(wanted, key=place.__getitem__):
        if last is not None and place[key] == place[last] + 1:
            ranges[-1] = (ranges[-1][0], key)
        else:
            ranges.append((key, key))
        last = key
    return ranges
