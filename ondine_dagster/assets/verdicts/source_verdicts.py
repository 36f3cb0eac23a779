"""What a snapshot says of its source: keys that name rows, rows that are gone or fit nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.status import DatasetStatus
from ondine_dagster.assets.verdicts.facts import closed_keys
from ondine_dagster.assets.verdicts.verdicts import SNAPSHOT, Verdict, labelled, up_to_date
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset
from ondine_dagster.spec.checks import CheckName
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.row_keys import BadKeys
from ondine_dagster.storage.snapshot import SnapshotResult, SourceEmptied, load_snapshot
from ondine_dagster.storage.sources import SourceNotFound
from ondine_dagster.wording import plural

_EXAMPLES = 10


def refused(error: OndineError, rows_before: int | None) -> list[Verdict]:
    """Return the verdict on a source that was refused, where a check speaks of the reason."""
    text = f"{error} The snapshot before stays."
    if isinstance(error, BadKeys):
        return [Verdict(SNAPSHOT, "source_keys", "source_keys", False, text, "error")]
    if isinstance(error, SourceEmptied | SourceNotFound) and rows_before:
        name: CheckName = "source_not_shrunk"
        return [Verdict(SNAPSHOT, name, name, False, text, "error")]
    return []


def source_verdicts(
    pipeline: Pipeline, taken: SnapshotResult, largest_before: int | None, status: DatasetStatus
) -> list[Verdict]:
    """Return the verdicts on a source that was read; `largest_before` are the rows to compare."""
    dataset = pipeline.dataset
    key = ", ".join(dataset.source.key)
    named = f"source.key ({key}) names" if key else "Without source.key, the content names"
    keys = f"{named} each of {taken.snapshot.rows:,} rows."
    wanted = frozenset(closed_keys(pipeline, taken.snapshot))
    kept = tuple(one for one in status.partitions if one.partition in wanted)
    closed = replace(status, partitions=kept)
    return [
        Verdict(SNAPSHOT, "source_keys", "source_keys", True, keys),
        not_shrunk(dataset, taken.snapshot.rows, largest_before),
        _fit(taken),
        labelled(closed),
        up_to_date(closed),
    ]


def largest_snapshot(lake: Lake, name: str) -> int | None:
    """Return the most rows of the snapshots that are kept; None where none was taken.

    Not those of the last one alone: looking twice at a source that shrank must not make it fine.
    """
    versions = lake.partitions(name, SNAPSHOT)
    return max((load_snapshot(lake, name, one).rows for one in versions), default=None)


def not_shrunk(dataset: Dataset, rows: int, before: int | None) -> Verdict:
    """Return whether a source has about as many rows as `before`."""
    most = dataset.checks.max_shrink
    lost = max(0, (before or 0) - rows)
    passed = before is None or lost <= most * before
    text = f"The source has {rows:,} rows."
    if before is not None and lost:
        text = (
            f"The source has {rows:,} rows, {lost:,} fewer than the largest of the last snapshots."
        )
    if not passed:
        text += (
            f" checks.max_shrink allows to lose {100 * most:g} %. What was answered is kept, but "
            "rows that are gone are no longer in the results: is the source complete?"
        )
    numbers: Mapping[str, float] = {"rows": rows, "rows_lost": lost}
    return Verdict(
        SNAPSHOT, "source_not_shrunk", "source_not_shrunk", passed, text, numbers=numbers
    )


def _fit(taken: SnapshotResult) -> Verdict:
    left_over = taken.snapshot.unassigned_rows
    text = "Every row fits a partition."
    if left_over:
        text = (
            f"No partition fits {plural(left_over, 'row')}: not labelled, and listed in "
            "rejected_rows/_unassigned with the reason. Correct the source, or change "
            "`partitions`."
        )
    return Verdict(
        SNAPSHOT,
        "rows_fit_partitions",
        "rows_fit_partitions",
        not left_over,
        text,
        partitions=[(f"row {key}", why) for key, why in list(taken.reasons.items())[:_EXAMPLES]],
        numbers={"rows_unassigned": left_over},
    )
