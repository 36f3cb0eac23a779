"""Where each partition of a dataset stands, read from the lake: no ledger, no money."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ondine_dagster.assets.shared.partition_counts import (
    MODELS,
    REJECTED,
    RESPONSES,
    RESULTS,
    TRIO,
    too_many,
    too_many_rejected,
)
from ondine_dagster.assets.shared.partitions import open_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.notes import read_notes
from ondine_dagster.storage.snapshot import PartitionInfo, Snapshot

_Notes = Mapping[str, str]
Read = Callable[[Lake, str, str, Sequence[str], Sequence[str]], Mapping[str, _Notes]]
_PARSED = ("ondine.outcomes", "ondine.local_version")
# what the state is made of, by the file that notes it
_NOTES = {
    RESPONSES: (
        "ondine.content_hash",
        "ondine.question_version",
        "ondine.outcomes",
        "ondine.red",
        "ondine.truncated",
        "ondine.ceiling",
        "ondine.unanswered",
        MODELS,
    ),
    RESULTS: (*_PARSED, "ondine.results", "ondine.skipped"),
    REJECTED: (*_PARSED, "ondine.rejected"),
}


class PartitionState(StrEnum):
    """What a partition needs; `run` picks by it."""

    DONE = "done"
    MISSING = "missing"  # never finished
    # red: rows wait for another run, were cut at a ceiling since raised, or too many are rejected
    FAILED = "failed"
    CHANGED = "changed"  # its rows are others than those in its files: treated as missing
    UNPARSED = "unparsed"  # a local setting changed: parsed again for nothing
    OPEN = "open"  # its window of time is not over yet: its rows wait for that
    STALE = "stale"  # prompt, model or schema changed: only `--all` pays for it


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition; counts are those of its files (0 where there are none).

    `skipped` rows stand in `results` too, and are not counted as results.
    `too_many_rejected` says so where `limits.max_rejected` is passed. `models` are its rows by the
    model that answered, as its server called it.
    """

    partition: str
    state: PartitionState
    rows: int
    results: int
    rejected: int
    waiting: int
    skipped: int = 0
    too_many_rejected: str | None = None
    models: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """All partitions of the current snapshot, in order.

    `unassigned` rows of the snapshot are in none of them: they were rejected by it.
    """

    dataset: str
    partitions: tuple[PartitionStatus, ...]
    unassigned: int = 0

    @property
    def rows(self) -> int:
        """Return the rows of all partitions."""
        return sum(one.rows for one in self.partitions)

    @property
    def open_rows(self) -> int:
        """Return the rows of windows that are not over yet."""
        return sum(one.rows for one in self.partitions if one.state is PartitionState.OPEN)

    @property
    def results(self) -> int:
        """Return the rows with a result."""
        return sum(one.results for one in self.partitions)

    @property
    def skipped(self) -> int:
        """Return the rows for which `when` is not true."""
        return sum(one.skipped for one in self.partitions)

    @property
    def rejected(self) -> int:
        """Return the rows that were rejected or wait in a red partition's file."""
        return sum(one.rejected for one in self.partitions)

    @property
    def waiting(self) -> int:
        """Return the rows that wait for another run."""
        return sum(one.waiting for one in self.partitions)

    @property
    def models(self) -> Counter[str]:
        """Return the answered rows by the model that answered, as its server called it."""
        found: Counter[str] = Counter()
        for one in self.partitions:
            found.update(one.models)
        return found

    def in_state(self, *states: PartitionState) -> list[str]:
        """Return the partitions in one of `states`, in order."""
        return [one.partition for one in self.partitions if one.state in states]


def dataset_status(
    pipeline: Pipeline,
    lake: Lake,
    snapshot: Snapshot | None = None,
    among: Collection[str] | None = None,
    read: Read = read_notes,
) -> DatasetStatus:
    """Return where each partition of a snapshot stands, of the current one unless it is given.

    `among` leaves out all others; `read` is for who has read the notes already. Raises OndineError
    where no snapshot was taken yet.
    """
    snapshot = snapshot or pipeline.snapshot(lake)
    still_open = open_keys(pipeline, snapshot)
    chosen = [info for info in snapshot.partitions if among is None or info.key in among]
    keys = [info.key for info in chosen]
    trio = [read(lake, pipeline.name, asset, keys, _NOTES[asset]) for asset in TRIO]
    return DatasetStatus(
        pipeline.name,
        tuple(
            PartitionStatus(info.key, PartitionState.OPEN, info.rows, 0, 0, 0)
            if info.key in still_open
            else _partition(pipeline, info, [notes.get(info.key) for notes in trio])
            for info in chosen
        ),
        snapshot.unassigned_rows,
    )


def _partition(
    pipeline: Pipeline, info: PartitionInfo, trio: Sequence[_Notes | None]
) -> PartitionStatus:
    key = info.key
    responses, results, rejected = trio
    if responses is None or results is None or rejected is None:
        return PartitionStatus(key, PartitionState.MISSING, info.rows, 0, 0, info.rows)
    if responses["ondine.content_hash"] != info.content_hash:  # its files are about other rows
        return PartitionStatus(key, PartitionState.CHANGED, info.rows, 0, 0, info.rows)
    state = _state(pipeline, responses, results, rejected)
    waiting, without_result = (
        int(responses["ondine.unanswered"]),
        int(rejected["ondine.rejected"]),
    )
    for_good, most = without_result - waiting, pipeline.dataset.limits.max_rejected
    # of the others the rejected rows are those of another declaration
    skipped = int(results.get("ondine.skipped") or 0)  # files of an older version have none
    judged = state in (PartitionState.DONE, PartitionState.FAILED)
    asked = info.rows - skipped
    passed = judged and too_many(for_good, asked, most)
    return PartitionStatus(
        partition=key,
        state=PartitionState.FAILED if passed else state,
        rows=info.rows,
        results=int(results["ondine.results"]) - skipped,
        rejected=without_result,
        waiting=waiting,
        skipped=skipped,
        too_many_rejected=too_many_rejected(for_good, asked, most) if passed else None,
        models=json.loads(responses.get(MODELS) or "{}"),  # files of an older version have none
    )


def _state(
    pipeline: Pipeline, responses: _Notes, results: _Notes, rejected: _Notes
) -> PartitionState:
    if responses["ondine.question_version"] != pipeline.question_version:
        return PartitionState.STALE
    if responses["ondine.red"] == "true" or _asks_again(pipeline, responses):
        return PartitionState.FAILED
    for parsed in (results, rejected):
        # made from the answers that `responses` holds now, by the declaration as it is now?
        same = parsed["ondine.outcomes"] == responses["ondine.outcomes"]
        if not same or parsed["ondine.local_version"] != pipeline.local_version:
            return PartitionState.UNPARSED
    return PartitionState.DONE


def _asks_again(pipeline: Pipeline, responses: _Notes) -> bool:
    """Return whether the ceiling was raised since answers were cut at it."""
    cut = int(responses["ondine.truncated"]) > 0
    return cut and pipeline.highest_ceiling > int(responses["ondine.ceiling"])
