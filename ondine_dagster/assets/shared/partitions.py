"""Partitions between a declaration and Dagster: which there are, and which a step works on.

Owns the translation of the five kinds. Rows, files and values that the data tells are registered
with Dagster by `snapshot`; windows of time and listed values Dagster knows by itself. Without
partitions the assets are materialized as a whole, and the lake keeps them under the key `WHOLE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import dagster as dg

from ondine_dagster.assets.shared.at_work import RANGE_END, RANGE_START
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.partition_keys import value_key
from ondine_dagster.storage.partitioning import WHOLE

if TYPE_CHECKING:
    from ondine_dagster.assets.shared.pipeline import Pipeline
    from ondine_dagster.spec import TimePartitions
    from ondine_dagster.storage.snapshot import Snapshot

_WINDOWS: Mapping[str, type[dg.TimeWindowPartitionsDefinition]] = {
    "hour": dg.HourlyPartitionsDefinition,
    "day": dg.DailyPartitionsDefinition,
    "week": dg.WeeklyPartitionsDefinition,
    "month": dg.MonthlyPartitionsDefinition,
}


def partitions_def(pipeline: Pipeline) -> dg.PartitionsDefinition[str] | None:
    """Return what Dagster calls the partitions of a dataset; None where it has none."""
    declared = pipeline.dataset.partitions
    if declared.kind == "none":
        return None
    if declared.time is not None:
        return _windows(declared.time)
    if declared.values is not None and declared.values.listed is not None:
        return dg.StaticPartitionsDefinition([value_key(one) for one in declared.values.listed])
    return dg.DynamicPartitionsDefinition(name=pipeline.name)


def _windows(declared: TimePartitions) -> dg.TimeWindowPartitionsDefinition:
    return _WINDOWS[declared.every](  # type: ignore[call-arg]
        start_date=declared.start, timezone=declared.timezone
    )


def is_registered(pipeline: Pipeline) -> bool:
    """Return whether Dagster learns the partitions from `snapshot`."""
    return isinstance(partitions_def(pipeline), dg.DynamicPartitionsDefinition)


def step_keys(context: dg.AssetExecutionContext) -> list[str]:
    """Return the keys of the partitions that a step works on; WHOLE where there are none."""
    if context.has_partition_key or context.has_partition_key_range:
        return list(context.partition_keys)
    return [WHOLE]


def event_key(pipeline: Pipeline, key: str) -> str | None:
    """Return a partition as events name it: None for that of a dataset without partitions."""
    return None if pipeline.dataset.partitions.kind == "none" else key


def known_keys(pipeline: Pipeline, instance: dg.DagsterInstance) -> Sequence[str]:
    """Return all partitions that Dagster knows now, in its order: of time, the closed windows."""
    definition = partitions_def(pipeline)
    if definition is None:
        return [WHOLE]
    return definition.get_partition_keys(dynamic_partitions_store=instance)


def runnable_keys(
    pipeline: Pipeline, snapshot: Snapshot, instance: dg.DagsterInstance
) -> list[str]:
    """Return the partitions of a snapshot that Dagster knows now, in Dagster's order."""
    definition = partitions_def(pipeline)
    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        still_open = open_keys(pipeline, snapshot)
        return [key for key in snapshot.by_key if key not in still_open]
    return [key for key in known_keys(pipeline, instance) if key in snapshot.by_key]


def open_keys(pipeline: Pipeline, snapshot: Snapshot) -> frozenset[str]:
    """Return the windows of a snapshot that are not over yet: their rows wait."""
    definition = partitions_def(pipeline)
    if not isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return frozenset()
    last = definition.get_last_partition_key()
    # keys of windows sort as their windows do
    return frozenset(key for key in snapshot.by_key if last is None or key > last)


def may_be_empty(pipeline: Pipeline) -> bool:
    """Return whether Dagster offers partitions in which no row needs to be."""
    return not is_registered(pipeline)


def ranges(
    pipeline: Pipeline, instance: dg.DagsterInstance, wanted: Sequence[str], longest: int
) -> Iterator[tuple[str, str]]:
    """Yield `wanted` as ranges of neighbours, at most `longest` each: one run takes one of them."""
    order = known_keys(pipeline, instance)
    place = {key: index for index, key in enumerate(order)}
    for first, last in contiguous(wanted, order):
        keys = islice(order, place[first], place[last] + 1)
        while piece := list(islice(keys, longest)):
            yield piece[0], piece[-1]


def range_tags(pipeline: Pipeline, first: str, last: str) -> dict[str, str]:
    """Return the tags that make a run of a range of partitions; none for unpartitioned assets."""
    if pipeline.dataset.partitions.kind == "none":
        return {}
    return {RANGE_START: first, RANGE_END: last}


def contiguous(wanted: Sequence[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """Group `wanted` into ranges of neighbours in `order`: a run takes one range.

    Raises OndineError for a partition that Dagster does not know (any more).
    """
    place = {key: index for index, key in enumerate(order)}
    strangers = [key for key in wanted if key not in place]
    if strangers:
        raise OndineError(
            f"Dagster does not know the partition {strangers[0]} (any more). Take the snapshot "
            "again: it registers the partitions that there are."
        )
    found: list[tuple[str, str]] = []
    last = None
    for key in sorted(wanted, key=place.__getitem__):
        if last is not None and place[key] == place[last] + 1:
            found[-1] = (found[-1][0], key)
        else:
            found.append((key, key))
        last = key
    return found
