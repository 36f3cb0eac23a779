"""`report`: totals and charts over all partitions of the current snapshot.

A table in the lake, a page of its own, and charts on the asset's page in Dagster.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.resources import LAKE, LLM, LakeResource, LLMProviderResource
from ondine_dagster.assets.shared import markdown
from ondine_dagster.assets.shared.events import Metadata, dollars
from ondine_dagster.assets.shared.holes import refuse_holes
from ondine_dagster.assets.shared.partitions import known_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.stage import stage
from ondine_dagster.assets.shared.status import DatasetStatus, dataset_status
from ondine_dagster.assets.verdicts.check_results import latest_results
from ondine_dagster.llm.prices import usd
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    from ondine_dagster.assets.reporting.charts import Chart
    from ondine_dagster.assets.reporting.report_data import ReportData
    from ondine_dagster.ledger.totals import Spent

_DESCRIPTION = """Totals and charts over all partitions: rows by outcome, money, labels, latency,
what waits for another run. `report_file` is a page that can be passed on."""
CHECK = "every_row_has_an_outcome"
_SHOWN_PARTITIONS = 50


def build_report(pipeline: Pipeline, checks: Sequence[dg.AssetCheckSpec]) -> dg.AssetsDefinition:
    """Return the `report` asset with its check (E-10); `checks` are those that it reports on."""
    spec = asset_spec(
        pipeline,
        "report",
        _DESCRIPTION,
        kinds={"html"},
        deps=["results", "rejected_rows"],
        automation_condition=(
            dg.AutomationCondition.any_deps_updated() & ~dg.AutomationCondition.in_progress()
        ),
    )

    @dg.multi_asset(
        name=f"{pipeline.name}__report",
        specs=[spec],
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=spec.key,
                description="Every row of the current snapshot is in results or in rejected_rows.",
            )
        ],
        required_resource_keys={LAKE, LLM},
    )
    def report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        from ondine_dagster.assets.reporting.charts import draw_charts
        from ondine_dagster.assets.reporting.report_data import collect
        from ondine_dagster.assets.reporting.report_page import write_page

        lake_resource: LakeResource = context.resources.ondine_lake
        llm: LLMProviderResource = context.resources.ondine_llm
        with stage(context, pipeline):
            lake = lake_resource.lake()
            status = dataset_status(pipeline, lake)
            refuse_holes(context.run, status, known_keys(pipeline, context.instance))
            with llm.ledger().database.read() as connection:
                judged = latest_results(context.instance, checks)
                data = collect(pipeline, lake, status, connection, judged)
            charts = draw_charts(data)
            _write_table(lake, data)
            path = write_page(lake, data, charts)
            context.log.info(f"{pipeline.name}: the report is {path}")
        return dg.MaterializeResult(
            metadata=_metadata(data, charts, path), check_results=[_check(status)]
        )

    return report


def _write_table(lake: Lake, data: "ReportData") -> None:
    """Write one row per partition to the lake, for those who ask in SQL."""
    import pyarrow as pa

    from ondine_dagster.assets.shared.tables import USD, usd_array

    partitions = data.status.partitions
    used = [data.used[one.partition] for one in partitions]
    counts = {
        name: pa.array([getattr(one, name) for one in partitions], pa.int64())
        for name in ("rows", "results", "skipped", "rejected", "waiting")
    }
    columns = {
        "partition": pa.array([one.partition for one in partitions], pa.string()),
        "state": pa.array([str(one.state) for one in partitions], pa.string()),
        **counts,
        "requests": pa.array([one.requests for one in used], pa.int64()),
        "tokens": pa.array([one.tokens for one in used], pa.int64()),
        "paid_usd": usd_array([one.paid for one in used]).cast(USD),
    }
    lake.write(data.dataset, "report", None, pa.table(columns))


def _metadata(data: "ReportData", charts: "Sequence[Chart]", path: Path) -> Metadata:
    from ondine_dagster.assets.reporting.report_page import data_uri

    status, money = data.status, data.money
    pictures = {
        f"chart_{chart.name}": dg.MetadataValue.md(f"![{chart.title}]({data_uri(chart)})")
        for chart in charts
    }
    return {
        "report_file": dg.MetadataValue.path(path),
        **pictures,
        "rows": status.rows,
        "results": status.results,
        "skipped": status.skipped,
        "rejected": status.rejected,
        "waiting": status.waiting,
        "unassigned_rows": status.unassigned,
        "open_rows": status.open_rows,
        "settled_usd": dollars(money.settled),
        "unknown_usd": dollars(money.reserved),
        "requests": money.requests,
        "tokens": money.tokens,
        "reused_share": round(data.reused_share, 6),
        "report": dg.MetadataValue.md(_summary(status, money)),
    }


def _summary(status: DatasetStatus, money: "Spent") -> str:
    """Return the report in few lines of markdown; the page and the charts say more."""
    states = Counter(str(one.state) for one in status.partitions)
    headers = ["partition", "state", "rows", "results", "rejected", "waiting"]
    shown = [
        (one.partition, str(one.state), one.rows, one.results, one.rejected, one.waiting)
        for one in status.partitions[:_SHOWN_PARTITIONS]
    ]
    lines = [
        (
            f"**{status.dataset}**: {status.rows:,} rows, {status.results:,} results, "
            f"{status.rejected:,} rejected, {status.waiting:,} waiting."
            f"{_skipped(status)}"
            f"{_without_partition(status)}"
        ),
        "",
        (
            f"Paid ${usd(money.settled):.6f} in {money.requests:,} requests; "
            f"${usd(money.reserved):.6f} open or of unknown outcome."
        ),
        "",
        "Partitions: " + ", ".join(f"{count} {state}" for state, count in states.most_common()),
        "",
        markdown.table(headers, shown, right={2, 3, 4, 5}),
    ]
    if len(status.partitions) > _SHOWN_PARTITIONS:
        lines.append(f"\n... and {len(status.partitions) - _SHOWN_PARTITIONS} more partitions")
    return "\n".join(lines)


def _skipped(status: DatasetStatus) -> str:
    return f" {status.skipped:,} are skipped by `when`." if status.skipped else ""


def _without_partition(status: DatasetStatus) -> str:
    """Return what became of the rows that no partition runs now."""
    said = []
    if status.unassigned:
        said.append(f" {status.unassigned:,} more fit no partition and are rejected.")
    if status.open_rows:
        said.append(f" {status.open_rows:,} of them wait for the end of their time window.")
    return "".join(said)


def _check(status: DatasetStatus) -> dg.AssetCheckResult:
    ended = status.results + status.skipped + status.rejected
    missing = status.rows - status.open_rows - ended
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=missing == 0,
        metadata={
            "rows": status.rows,
            "results": status.results,
            "skipped": status.skipped,
            "rejected": status.rejected,
            "unassigned": status.unassigned,
            "open": status.open_rows,
            "without_outcome": missing,
        },
        description=(
            None
            if missing == 0
            else f"{missing} rows have no outcome yet; backfill the missing and changed partitions "
            f"or run `ondine-dagster run {status.dataset}`."
        ),
    )
