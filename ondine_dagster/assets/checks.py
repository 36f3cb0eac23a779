"""Asset checks: which there are, and how a step logs their verdicts.

Verdicts are logged as events by the step itself, before it fails or succeeds: a result that is
returned gets lost when the step fails, and a check with a step of its own is skipped then. They
have no partition in Dagster, as they cover all partitions of the snapshot, also those of earlier
runs; the metadata names the partitions that speak against it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import dagster as dg

from ondine_dagster.assets.keys import asset_key
from ondine_dagster.assets.shared import markdown
from ondine_dagster.assets.shared.events import Metadata
from ondine_dagster.assets.shared.partition_counts import REJECTED, RESPONSES, RESULTS
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.verdicts.field_verdicts import check_names
from ondine_dagster.assets.verdicts.verdicts import SNAPSHOT, Verdict
from ondine_dagster.spec.checks import CheckName, Checks, Severity

_SHOWN_PARTITIONS = 20
_DESCRIPTIONS: Mapping[str, Mapping[CheckName, str]] = {
    SNAPSHOT: {
        "source_keys": "Every row of the source has a key of its own.",
        "source_not_shrunk": "The source has not lost more rows than `checks.max_shrink` allows.",
        "rows_fit_partitions": "Every row of the source belongs to a partition.",
        "labelled": "Every partition is labelled. If not, it says what to do next.",
        "up_to_date": "Results were made by prompt, model and settings as they are declared now.",
    },
    RESPONSES: {
        "complete": "No partition failed, and no row waits for another run.",
        "one_model": "One model has answered all rows, by the name that its server gives it.",
        "cost_per_row": "A row costs about what the plan expected (`checks.max_cost_ratio`).",
        "budget_left": "No budget is nearly used up (`limits.warn_at_percent`).",
        "unknown_money": "No request ended without anybody knowing whether it was billed.",
        "ledger": "The ledger can be written and holds the end of every request.",
    },
    RESULTS: {
        "rows_add_up": "Rows in = rows in results + rows in rejected_rows, in each partition.",
        "drift": "No more rows that `verify` asked again differ than `checks.max_drift` allows.",
    },
    REJECTED: {
        "rejected_share": "No partition has more rejected rows than `limits.max_rejected` allows.",
    },
}
_FIELD = "Values of `{}`: filled, expected, in range, not all the same (`checks.fields`)."


def check_specs(pipeline: Pipeline, assets: Collection[str]) -> list[dg.AssetCheckSpec]:
    """Return the checks of some stages."""
    blocking = pipeline.dataset.checks.blocking
    found: list[tuple[str, str, CheckName, str]] = [
        (asset, name, name, text)
        for asset in assets
        for name, text in _DESCRIPTIONS.get(asset, {}).items()
    ]
    if RESULTS in assets:
        found += [
            (RESULTS, name, "fields", _FIELD.format(column))
            for column, name in check_names(pipeline.dataset).items()
        ]
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset_key(pipeline.name, asset),
            description=text,
            blocking=setting in blocking,
        )
        for asset, name, setting, text in found
    ]


def log_verdicts(
    context: dg.AssetExecutionContext, pipeline: Pipeline, verdicts: Iterable[Verdict], covers: str
) -> None:
    """Log an event per verdict; may be called in a step that is about to fail."""
    for one in verdicts:
        context.log_event(_event(pipeline, one, covers))


def fail_if_blocked(pipeline: Pipeline, verdicts: Iterable[Verdict]) -> None:
    """Fail the step where a check that is declared as blocking did not pass."""
    blocking = pipeline.dataset.checks.blocking
    failed = [one for one in verdicts if not one.passed and one.setting in blocking]
    if failed:
        raise dg.Failure(
            description="\n".join(
                f"{pipeline.name}: the check {one.name} failed, which is declared as blocking. "
                f"{pipeline.scrub(one.text)}"
                for one in failed
            ),
            allow_retries=False,
        )


def severity_of(checks: Checks, verdict: Verdict) -> Severity:
    """Return how bad it is that a check did not pass."""
    if verdict.setting in checks.blocking:
        return "error"
    return checks.severity.get(verdict.setting, verdict.severity)


def _event(pipeline: Pipeline, verdict: Verdict, covers: str) -> dg.AssetCheckEvaluation:
    severity = severity_of(pipeline.dataset.checks, verdict)
    return dg.AssetCheckEvaluation(
        asset_key=asset_key(pipeline.name, verdict.asset),
        check_name=verdict.name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity(severity.upper()),
        description=pipeline.scrub(verdict.text),
        metadata=_metadata(pipeline, verdict, covers),
        blocking=verdict.setting in pipeline.dataset.checks.blocking,
    )


def _metadata(pipeline: Pipeline, verdict: Verdict, covers: str) -> Metadata:
    scrub = pipeline.scrub
    numbers = {k: scrub(v) if isinstance(v, str) else v for k, v in verdict.numbers.items()}
    metadata: Metadata = {**numbers, "covers": covers}
    if verdict.partitions:
        shown = [(key, scrub(why)) for key, why in verdict.partitions[:_SHOWN_PARTITIONS]]
        text = markdown.table(("partition", "what is wrong"), shown)
        if (more := len(verdict.partitions) - len(shown)) > 0:
            text += f"\n\n... and {more:,} more partitions"
        metadata["partitions"] = dg.MetadataValue.md(text)
    return metadata
