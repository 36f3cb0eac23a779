"""What the values of an output column look like, counted while a partition is written.

A note of the partition's `results` file holds the counts, so that nobody reads the values again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256

from ondine_dagster.llm.field_checks import Value
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.privacy.scrubbing import beginning

NOTE = "ondine.fields"
_LONGEST_LABEL = 80
# while counting; how many different values are told apart
_DISTINCT = 1000
# in the note: all of a list of labels, of free text a few
_ALL_UP_TO, _FREQUENT = 100, 10


@dataclass(slots=True)
class FieldCounts:
    """Counts of one column. `filled` values are neither NULL nor blank.

    `labels` are the values that were told apart, the rest of the filled ones are of others;
    `distinct` is how many values there were at least. `low` and `high` are those of numbers.
    """

    rows: int = 0
    filled: int = 0
    distinct: int = 0
    labels: Counter[str | int | float | bool] = field(default_factory=Counter)
    low: float | None = None
    high: float | None = None

    def add(self, values: Sequence[Value]) -> None:
        """Count more values of the column."""
        scalars = [compact_json(one) if isinstance(one, list | dict) else one for one in values]
        filled = [one for one in scalars if one is not None and one != "" and not _blank(one)]
        self.rows += len(values)
        self.filled += len(filled)
        for value, count in Counter(filled).items():
            label = _label(value)
            if label in self.labels or len(self.labels) < _DISTINCT:
                self.labels[label] += count
        self.distinct = len(self.labels)
        numbers = [one for one in filled if isinstance(one, (int, float))]
        if numbers and not isinstance(numbers[0], bool):
            self._widen(min(numbers), max(numbers))

    def merge(self, other: FieldCounts) -> None:
        """Add the counts of another partition."""
        self.rows += other.rows
        self.filled += other.filled
        self.labels.update(other.labels)
        self.distinct = max(self.distinct, other.distinct, len(self.labels))
        if other.low is not None and other.high is not None:
            self._widen(other.low, other.high)

    def _widen(self, low: float, high: float) -> None:
        self.low = low if self.low is None else min(low, self.low)
        self.high = high if self.high is None else max(high, self.high)

    @property
    def filled_share(self) -> float:
        """Return the share of rows with a value; 1 where there are no rows."""
        return self.filled / self.rows if self.rows else 1.0

    @property
    def top(self) -> tuple[str | int | float | bool, float] | None:
        """Return the most common label and its share of the filled values; None without any."""
        if not self.labels or not self.filled:
            return None
        label, count = self.labels.most_common(1)[0]
        return label, count / self.filled


def _blank(value: str | int | float | bool) -> bool:
    return isinstance(value, str) and not value.strip()


def _label(value: str | int | float | bool) -> str | int | float | bool:
    """Return a value as it is counted: long texts by their beginning and a hash."""
    if not isinstance(value, str) or len(value) <= _LONGEST_LABEL:
        return value
    digest = sha256(value.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{beginning(value, _LONGEST_LABEL - 11, '…')} ({digest})"


def to_note(counts: Mapping[str, FieldCounts]) -> str:
    """Return the counts by column as a note."""
    return json.dumps({name: _shortened(one) for name, one in counts.items()})


def _shortened(counts: FieldCounts) -> dict[str, object]:
    kept = len(counts.labels) if len(counts.labels) <= _ALL_UP_TO else _FREQUENT
    # as pairs: JSON knows only text as a key
    return asdict(counts) | {"labels": counts.labels.most_common(kept)}


def from_note(note: str | None) -> dict[str, FieldCounts]:
    """Return the counts by column; none for a file that was written before they were counted."""
    found = json.loads(note) if note else {}
    return {
        name: FieldCounts(**{**one, "labels": Counter(dict(one["labels"]))})
        for name, one in found.items()
    }


def merged(counts: Iterable[FieldCounts]) -> FieldCounts:
    """Return the counts of several partitions together."""
    total = FieldCounts()
    for one in counts:
        total.merge(one)
    return total
