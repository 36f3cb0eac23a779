"""What the values of an output column are worth: filled, expected, in range, not all the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ondine_dagster.assets.shared.partition_counts import RESULTS
from ondine_dagster.assets.verdicts.facts import Facts, PartitionFacts
from ondine_dagster.assets.verdicts.field_counts import FieldCounts, merged
from ondine_dagster.assets.verdicts.verdicts import Verdict
from ondine_dagster.spec import AcceptList, AcceptRange, Dataset
from ondine_dagster.spec.checks import FieldChecks
from ondine_dagster.spec.values import Scalar, outside
from ondine_dagster.wording import plural

_ENOUGH_VALUES = 50
_ENOUGH_ROWS = 20
# how likely it may be that a partition is all the same by accident
_ACCIDENT = 1e-4
_REQUIRED_FILLED, _OPTIONAL_FILLED = 0.9, 0.01
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Expected:
    """What a column should look like: as its checks say, else as its field does."""

    column: str
    min_filled: float
    allowed: tuple[Scalar, ...] | None
    minimum: float | None
    maximum: float | None
    max_same: float


def expected_of(dataset: Dataset, column: str) -> Expected:
    """Return what is expected of an output column."""
    checks = dataset.checks.fields.get(column, FieldChecks())
    field, choice = dataset.output.fields_by_column().get(column), dataset.output.choice
    filled = _REQUIRED_FILLED if field is None or field.required else _OPTIONAL_FILLED
    allowed, minimum, maximum = (field.enum, field.minimum, field.maximum) if field else [None] * 3
    if choice is not None:
        allowed = tuple(choice.values)
    if field is not None and isinstance(field.accept, AcceptList):
        allowed = field.accept.values
    if field is not None and isinstance(field.accept, AcceptRange):
        minimum = minimum if field.accept.minimum is None else field.accept.minimum
        maximum = maximum if field.accept.maximum is None else field.accept.maximum
    return Expected(
        column,
        min_filled=filled if checks.min_filled is None else checks.min_filled,
        allowed=checks.allowed or allowed,
        minimum=minimum if checks.minimum is None else checks.minimum,
        maximum=maximum if checks.maximum is None else checks.maximum,
        max_same=checks.max_same,
    )


def check_names(dataset: Dataset) -> dict[str, str]:
    """Return the names of the columns' checks in Dagster, by column."""
    names: dict[str, str] = {}
    for column in dataset.output_columns():
        name = f"values_of_{re.sub(r'[^A-Za-z0-9_]', '_', column)}"
        names[column] = f"{name}_{len(names)}" if name in names.values() else name
    return names


def field_verdicts(facts: Facts) -> list[Verdict]:
    """Return a verdict for each output column."""
    dataset = facts.pipeline.dataset
    return [
        _verdict(facts, expected_of(dataset, column), name)
        for column, name in check_names(dataset).items()
    ]


def _verdict(facts: Facts, expected: Expected, name: str) -> Verdict:
    column = expected.column
    counted = [one for one in facts.partitions if column in one.fields]
    total = merged(one.fields[column] for one in counted)
    problems = [*_problems(expected, total), *_constant(expected, total)]
    partitions = _bad_partitions(expected, total, counted)
    passed = not problems and not partitions
    text = "; ".join(problems) or _summary(column, total)
    if partitions and not problems:
        text = f"`{column}` is fine as a whole, and not in {plural(len(partitions), 'partition')}"
    return Verdict(
        RESULTS,
        name,
        "fields",
        passed,
        f"{text}.",
        partitions=partitions,
        numbers=_numbers(total),
    )


def _summary(column: str, total: FieldCounts) -> str:
    if not total.rows:
        return f"`{column}`: no results yet"
    text = f"`{column}`: {100 * total.filled_share:.3g} % filled"
    if total.top is None:
        return text
    label, share = total.top
    return f"{text}, most often {_shown(label)} ({100 * share:.3g} %)"


def _numbers(total: FieldCounts) -> dict[str, float | str]:
    numbers: dict[str, float | str] = {
        "results": total.rows,
        "filled_share": round(total.filled_share, 6),
        "different_values": total.distinct,
    }
    if total.top is not None:
        label, share = total.top
        numbers |= {"most_common": _shown(label), "most_common_share": round(share, 6)}
    if total.low is not None and total.high is not None:
        numbers |= {"lowest": total.low, "highest": total.high}
    return numbers


def _problems(expected: Expected, counts: FieldCounts) -> list[str]:
    """Return what is wrong with the values of one partition, or of all."""
    column, found = expected.column, []
    if counts.filled_share < expected.min_filled:
        found.append(
            f"`{column}` is filled in {100 * counts.filled_share:.3g} % of the rows, expected at "
            f"least {100 * expected.min_filled:g} %"
        )
    if strange := _strange(expected, counts):
        found.append(f"`{column}` has values that are not expected: {', '.join(strange)}")
    for value in (counts.low, counts.high):
        if value is not None and outside(value, expected.minimum, expected.maximum):
            bounds = f"{_bound(expected.minimum)} to {_bound(expected.maximum)}"
            found.append(f"`{column}` has {value:g}, expected {bounds}")
    return found


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def _strange(expected: Expected, counts: FieldCounts) -> list[str]:
    """Return values beyond the allowed ones, the most common first."""
    if expected.allowed is None:
        return []
    allowed = frozenset(expected.allowed)
    strange = [(label, n) for label, n in counts.labels.most_common() if label not in allowed]
    shown = [f"{_shown(label)} ({n:,})" for label, n in strange[:_SHOWN]]
    if len(strange) > _SHOWN:
        shown.append("...")
    if not strange and counts.distinct > len(allowed):  # those of free text are not all noted
        shown.append(f"{counts.distinct:,} different ones, of {len(allowed):,} allowed")
    return shown


def _constant(expected: Expected, total: FieldCounts) -> list[str]:
    if total.top is None or total.filled < _ENOUGH_VALUES or total.top[1] <= expected.max_same:
        return []
    label, share = total.top
    text = (
        f"`{expected.column}` is {_shown(label)} in {100 * share:.3g} % of the rows, expected at "
        f"most {100 * expected.max_same:g} %: the model seems to answer always the same"
    )
    return [text]


def _bad_partitions(
    expected: Expected, total: FieldCounts, counted: Sequence[PartitionFacts]
) -> list[tuple[str, str]]:
    found = []
    for one in counted:
        counts = one.fields[expected.column]
        problems = _problems(expected, counts) if counts.rows >= _ENOUGH_ROWS else []
        if expected.max_same < 1 and _is_constant_alone(total, counts):
            problems.append(f"all {counts.filled:,} values are {_shown(*counts.labels)}")
        if problems:
            found.append((counts.rows, one.key, "; ".join(problems)))
    found.sort(key=lambda one: (-one[0], one[1]))
    return [(key, text) for _, key, text in found]


def _is_constant_alone(total: FieldCounts, counts: FieldCounts) -> bool:
    """Return whether a partition is all the same, which by the others is no accident."""
    if len(counts.labels) != 1 or counts.distinct != 1:
        return False
    (label,) = counts.labels
    share: float = total.labels[label] / total.filled
    return bool(share**counts.filled < _ACCIDENT)


def _shown(label: Scalar) -> str:
    return repr(label) if isinstance(label, str) else str(label)
