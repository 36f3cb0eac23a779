"""What the asset checks of a dataset said last, as Dagster remembers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The latest result of one check; `severity` is `warn` or `error`, `text` its sentence."""

    asset: str
    name: str
    passed: bool
    severity: str
    text: str


def latest_results(
    instance: dg.DagsterInstance, specs: Sequence[dg.AssetCheckSpec]
) -> list[CheckResult]:
    """Return the results of those checks that have one, in the order of `specs`."""
    keys = [spec.key for spec in specs]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    found = []
    for key in keys:
        record = records.get(key)
        event = record.event.dagster_event if record and record.event else None
        # while a check is planned and not yet run, the event is of the plan
        judged = event.event_specific_data if event else None
        if isinstance(judged, dg.AssetCheckEvaluation):
            found.append(
                CheckResult(
                    asset=key.asset_key.path[-1],
                    name=key.name,
                    passed=judged.passed,
                    severity=judged.severity.value.lower(),
                    text=judged.description or "",
                )
            )
    return found
