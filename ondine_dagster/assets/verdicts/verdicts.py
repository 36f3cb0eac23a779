"""What the facts of a dataset are worth: one verdict per check, over all partitions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ondine_dagster.assets.shared.events import dollars
from ondine_dagster.assets.shared.next_step import DUE, next_step
from ondine_dagster.assets.shared.partition_counts import REJECTED, RESPONSES, RESULTS
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState, PartitionStatus
from ondine_dagster.assets.verdicts.facts import Facts, PartitionFacts
from ondine_dagster.spec.checks import CheckName, Severity
from ondine_dagster.wording import counted, plural

SNAPSHOT = "snapshot"
# a partition with fewer rows says little by itself
_ENOUGH_ROWS = 20
_SHOWN_MODELS = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of `asset` found; `partitions` are those that speak against it, worst first.

    `name` is the check in Dagster, `setting` what a declaration calls it. `severity` counts where
    it did not pass and the declaration says nothing.
    """

    asset: str
    name: str
    setting: CheckName
    passed: bool
    text: str
    severity: Severity = "warn"
    partitions: Sequence[tuple[str, str]] = ()
    numbers: Mapping[str, float | str] = field(default_factory=dict)


def partition_verdicts(facts: Facts) -> list[Verdict]:
    """Return the verdicts that need nothing but the notes of the partitions."""
    return [
        labelled(facts.status),
        up_to_date(facts.status),
        _complete(facts),
        _one_model(facts),
        _cost_per_row(facts),
        _rows_add_up(facts),
        _drift(facts),
        _rejected_share(facts),
    ]


def _in(status: DatasetStatus, *states: PartitionState) -> list[PartitionStatus]:
    return [one for one in status.partitions if one.state in states]


def labelled(status: DatasetStatus) -> Verdict:
    """Return whether every partition is labelled, and what to do if not."""
    todo = _in(status, *DUE, PartitionState.FAILED)
    return Verdict(
        SNAPSHOT,
        "labelled",
        "labelled",
        not todo,
        next_step(status) or "Every partition is labelled.",
        partitions=[(one.partition, _state(one)) for one in todo],
        numbers={"partitions_to_label": len(todo), "rows_to_label": sum(o.rows for o in todo)},
    )


def _state(one: PartitionStatus) -> str:
    waiting = f", {one.waiting:,} waiting" if one.state is PartitionState.FAILED else ""
    return f"{one.state}, {one.rows:,} rows{waiting}"


def up_to_date(status: DatasetStatus) -> Verdict:
    """Return whether what is there was made by the declaration as it is now."""
    name = status.dataset
    stale, unparsed = _in(status, PartitionState.STALE), _in(status, PartitionState.UNPARSED)
    found = []
    if stale:
        found.append(
            f"{plural(len(stale), 'partition')} with answers to another question (prompt, model or "
            f"schema changed): `ondine-dagster plan {name}` says what `ondine-dagster run "
            f"{name} --all` would cost."
        )
    if unparsed:
        found.append(
            f"{plural(len(unparsed), 'partition')} parsed with other settings than now: "
            f"`ondine-dagster run {name}` parses again, for free."
        )
    return Verdict(
        SNAPSHOT,
        "up_to_date",
        "up_to_date",
        not found,
        " ".join(found) or "All results were made by the declaration as it is.",
        partitions=[(one.partition, str(one.state)) for one in (*stale, *unparsed)],
        numbers={"partitions_stale": len(stale), "partitions_unparsed": len(unparsed)},
    )


def _complete(facts: Facts) -> Verdict:
    red = [one for one in facts.partitions if one.status.state is PartitionState.FAILED]
    waiting = sum(one.status.waiting for one in red)
    red.sort(key=lambda one: -one.status.waiting)
    text = "No partition failed, and no row waits."
    if red:
        why = next((one.why for one in red if one.why), "")
        text = (
            f"{plural(len(red), 'partition')} failed; {plural(waiting, 'row')} waiting for another "
            f"run. {why} To go on: `ondine-dagster run {facts.status.dataset}`."
        ).replace("  ", " ")
    return Verdict(
        RESPONSES,
        "complete",
        "complete",
        not red,
        text,
        "error",
        [(one.key, _why_red(one)) for one in red],
        {"partitions_failed": len(red), "rows_waiting": waiting},
    )


def _why_red(one: PartitionFacts) -> str:
    rejected = one.status.too_many_rejected or ""
    waiting = (
        f"{plural(one.status.waiting, 'row')} waiting: {one.why}" if one.status.waiting else one.why
    )
    return "; ".join(part for part in (waiting, rejected) if part)


def _one_model(facts: Facts) -> Verdict:
    models = facts.status.models
    told = counted(models, _SHOWN_MODELS)
    usual = models.most_common(1)[0][0] if models else ""
    others = [
        (one.key, counted(one.status.models, _SHOWN_MODELS))
        for one in facts.partitions
        if one.status.models and set(one.status.models) != {usual}
    ]
    text = f"Rows by the model that answered: {told}." if models else "Nothing was answered yet."
    passed = len(models) < 2 or _may_be_several(facts.pipeline)
    if not passed:
        name = facts.status.dataset
        text += (
            " The server gives its model another name for some of them: perhaps it is another "
            f"model. `ondine-dagster verify {name}` asks some rows again and compares."
        )
    return Verdict(
        RESPONSES,
        "one_model",
        "one_model",
        passed,
        text,
        partitions=[] if passed else others,
        numbers={"models": len(models)},
    )


def _may_be_several(pipeline: Pipeline) -> bool:
    """Return whether the declaration names several models."""
    llm = pipeline.dataset.llm
    return pipeline.fallback_llm is not None or bool(llm.openrouter and llm.openrouter.models)


def _cost_per_row(facts: Facts) -> Verdict:
    most = facts.pipeline.dataset.checks.max_cost_ratio
    priced = [one for one in facts.partitions if one.asked and one.expected]
    dear = sorted(
        (one for one in priced if one.asked >= _ENOUGH_ROWS and _ratio([one]) > most),
        key=lambda one: -_ratio([one]),
    )
    ratio = _ratio(priced)
    passed = not dear and ratio <= most
    if not priced:
        return Verdict(RESPONSES, "cost_per_row", "cost_per_row", True, "Nothing to compare yet.")
    asked = sum(one.asked for one in priced)
    cost = dollars(sum(one.cost for one in priced)) / asked
    expected = dollars(sum(one.expected for one in priced)) / asked
    text = f"A row cost ${cost:.8f}, {ratio:.2f} times what was expected (${expected:.8f})."
    if not passed:
        text += (
            f" More than {most:g} times is a sign of longer answers, more retries or other prices."
        )
    return Verdict(
        RESPONSES,
        "cost_per_row",
        "cost_per_row",
        passed,
        text,
        partitions=[(one.key, f"{_ratio([one]):.2f} times what was expected") for one in dear],
        numbers={"cost_per_row_usd": cost, "expected_per_row_usd": expected, "ratio": ratio},
    )


def _ratio(partitions: Sequence[PartitionFacts]) -> float:
    expected = sum(one.expected for one in partitions)
    return sum(one.cost for one in partitions) / expected if expected else 0.0


def _drift(facts: Facts) -> Verdict:
    drift, allowed = facts.drift, facts.pipeline.dataset.checks.max_drift
    if drift is None:
        return Verdict(RESULTS, "drift", "drift", True, "No row was asked again to compare.")
    return Verdict(
        RESULTS,
        "drift",
        "drift",
        drift.passed(allowed),
        drift.text(allowed),
        partitions=drift.examples or drift.unclear,
        numbers={"drift_percent": drift.percent, **{f"rows_{k}": v for k, v in drift.rows.items()}},
    )


def _rows_add_up(facts: Facts) -> Verdict:
    wrong = [
        (one.key, f"{one.status.rows:,} rows in, {one.written:,} in the files")
        for one in facts.partitions
        if one.written is not None and one.written != one.status.rows
    ]
    rows = sum(one.status.rows for one in facts.partitions)
    written = sum(one.written or 0 for one in facts.partitions)
    text = f"{written:,} of {rows:,} rows are in results or rejected_rows"
    if wrong:
        text += (
            f", and the rows of {plural(len(wrong), 'partition')} do not add up: materialize "
            "results and rejected_rows together"
        )
    return Verdict(
        RESULTS,
        "rows_add_up",
        "rows_add_up",
        not wrong,
        f"{text}.",
        "error",
        wrong,
        {
            "rows": rows,
            "results": sum(one.status.results for one in facts.partitions),
            "skipped": sum(one.status.skipped for one in facts.partitions),
            "rejected": sum(_for_good(one) for one in facts.partitions),
            "waiting": sum(one.status.waiting for one in facts.partitions if one.written),
        },
    )


def _for_good(one: PartitionFacts) -> int:
    return 0 if one.written is None else one.status.rejected - one.status.waiting


def _rejected_share(facts: Facts) -> Verdict:
    asked = [one for one in facts.partitions if one.written]
    rows = sum(one.status.rows - one.status.skipped for one in asked)
    rejected = sum(map(_for_good, asked))
    bad = [one for one in asked if one.status.too_many_rejected]
    bad.sort(key=lambda one: -_for_good(one) / (one.status.rows - one.status.skipped))
    share = rejected / rows if rows else 0.0
    text = f"{rejected:,} of {rows:,} rows are rejected ({100 * share:.3g} %)."
    if bad:
        name = facts.status.dataset
        text += (
            f" In {plural(len(bad), 'partition')} they are more than limits.max_rejected allows: "
            f"look at rejected_rows. `ondine-dagster retry {name}` asks again for those that may "
            "succeed, and says how to ask for the others."
        )
    return Verdict(
        REJECTED,
        "rejected_share",
        "rejected_share",
        not bad,
        text,
        "error",
        [(one.key, one.status.too_many_rejected or "") for one in bad],
        {"rejected": rejected, "rejected_share": share},
    )
