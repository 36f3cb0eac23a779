"""Which partitions a run takes, and what has to be done with each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from ondine_dagster.assets.rows.purged_files import texts_gone
from ondine_dagster.assets.shared.partition_counts import RESPONSES
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import listed

_MISSING = (PartitionState.MISSING, PartitionState.CHANGED, PartitionState.FAILED)
_SHOWN_KEYS = 5
Mode = Literal["missing", "failed", "all"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What the person asked for; `partitions` by name win over the mode."""

    mode: Mode = "missing"
    partitions: tuple[str, ...] = ()

    @property
    def options(self) -> str:
        """Return the options of `run` that make this choice."""
        if self.partitions:
            return "".join(f" --partition {key}" for key in self.partitions)
        return "" if self.mode == "missing" else f" --{self.mode}"


@dataclass(frozen=True, slots=True)
class Work:
    """Partitions to go through all stages, and those whose answers only have to be read again."""

    whole: tuple[str, ...]
    reparse: tuple[str, ...]

    @property
    def partitions(self) -> int:
        """Return how many partitions there are to do."""
        return len(self.whole) + len(self.reparse)


def choose(choice: Choice, status: DatasetStatus, pipeline: Pipeline, lake: Lake) -> Work:
    """Return the partitions to run.

    Raises OndineError for a partition that the current snapshot does not have.
    """
    wanted = _wanted(choice, status)
    unparsed = set(status.in_state(PartitionState.UNPARSED)) if choice.mode != "all" else set()
    reparse = [
        key for key in wanted if key in unparsed and _answers_fit_rows(lake, pipeline.name, key)
    ]
    again = set(reparse)
    return Work(tuple(key for key in wanted if key not in again), tuple(reparse))


def _wanted(choice: Choice, status: DatasetStatus) -> list[str]:
    known = [one.partition for one in status.partitions]
    if choice.partitions:
        for key in choice.partitions:
            if key not in known:
                raise OndineError(_no_such_partition(key, known, status.dataset))
        named = set(choice.partitions)
        waiting = named.intersection(status.in_state(PartitionState.OPEN))
        if waiting:
            raise OndineError(
                f"The time window {min(waiting)} of dataset {status.dataset} is not over yet: "
                "rows may still come. Run it when it is."
            )
        return [key for key in known if key in named]
    if choice.mode == "all":
        closed = (one for one in status.partitions if one.state is not PartitionState.OPEN)
        return [one.partition for one in closed]
    if choice.mode == "failed":
        return status.in_state(PartitionState.FAILED)
    return status.in_state(*_MISSING, PartitionState.UNPARSED)


def _no_such_partition(key: str, known: Sequence[str], dataset: str) -> str:
    close = get_close_matches(key, known, n=1)
    shown = listed(known, _SHOWN_KEYS)
    hint = f"Did you mean {close[0]}?" if close else f"There are: {shown or 'none'}."
    return f"Dataset {dataset} has no partition {key} in its current snapshot. {hint}"


def _answers_fit_rows(lake: Lake, dataset: str, key: str) -> bool:
    """Answers are matched with rows by place: both files must be in the same order, with texts."""
    if not lake.exists(dataset, "raw_rows", key):
        return False
    rows, answers = (lake.metadata(dataset, asset, key) for asset in ("raw_rows", RESPONSES))
    return rows["ondine.order"] == answers["ondine.order"] and not texts_gone(lake, dataset, key)
