"""What a person has to do next with a dataset, in sentences with counts.

`snapshot` shows it in its metadata, and the check on it fails with it: a run of everything on a
fresh project labels nothing, as the partitions of a run are fixed before it begins.
"""

from __future__ import annotations

from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState
from ondine_dagster.wording import plural

# What schedule and sensors take up. Failed partitions wait for a person: what made them fail
# would make them fail again, and asking costs money.
DUE = (PartitionState.MISSING, PartitionState.CHANGED)


def next_step(status: DatasetStatus) -> str | None:
    """Return what to do so that every row of the snapshot has an outcome; None: nothing."""
    sentences = [one for one in (_due(status), _failed(status)) if one]
    if not sentences:
        return None
    plan = f"`ondine-dagster plan {status.dataset}` says what it costs."
    return " ".join([*sentences, plan])


def _due(status: DatasetStatus) -> str | None:
    name, due = status.dataset, [one for one in status.partitions if one.state in DUE]
    if not due:
        return None
    some = status.results or status.skipped
    state = "Not all rows are labelled" if some else "Nothing is labelled yet"
    rows = sum(one.rows for one in due)
    return (
        f"{state}: {plural(len(due), 'partition')} with {plural(rows, 'row')} missing or "
        f"changed. Next: launch the job {name}__label for {'it' if len(due) == 1 else 'them'} in "
        f"Dagster, or switch on the sensor {name}__watch, which does so now and whenever the "
        f"source changes, or run `ondine-dagster run {name}`."
    )


def _failed(status: DatasetStatus) -> str | None:
    name = status.dataset
    red = [one for one in status.partitions if one.state is PartitionState.FAILED]
    failed = [one for one in red if one.waiting]
    if failed:
        return (
            f"{plural(len(failed), 'partition')} failed, and rows in "
            f"{'it' if len(failed) == 1 else 'them'} wait for another run: re-execute the "
            f"backfill from failure, or run `ondine-dagster run {name} --failed`."
        )
    if red:
        return (
            f"Too many rows are rejected in {plural(len(red), 'partition')}: look at "
            f"rejected_rows. The job {name}__retry_rejected, or `ondine-dagster retry {name}`, "
            "asks again for those that may succeed."
        )
    return None
