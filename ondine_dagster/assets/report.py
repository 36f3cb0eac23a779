"""`report`: totals over all partitions of the current snapshot, as a table and as markdown."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import dagster as dg

from ondine_dagster.assets.events import readable_failures
from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.pipeline import Pipeline
from ondine_dagster.assets.resources import LAKE, LLM, LakeResource, LLMProviderResource
from ondine_dagster.assets.status import DatasetStatus, PartitionStatus, dataset_status
from ondine_dagster.llm.prices import usd
from ondine_dagster.storage.lake import Lake

if TYPE_CHECKING:
    from ondine_dagster.ledger.totals import Spent

_DESCRIPTION = "Totals over all partitions: rows by outcome, money, what waits for another run."
CHECK = "every_row_has_an_outcome"
_SHOWN_PARTITIONS = 50


def build_report(pipeline: Pipeline) -> dg.AssetsDefinition:
    """Return the `report` asset with its check (E-10)."""
    spec = asset_spec(
        pipeline,
        "report",
        _DESCRIPTION,
        kinds={"markdown"},
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
        from ondine_dagster.ledger.totals import spent

        lake_resource: LakeResource = context.resources.ondine_lake
        llm: LLMProviderResource = context.resources.ondine_llm
        with readable_failures():
            status = dataset_status(pipeline, lake_resource.lake())
            write_report(lake_resource.lake(), status)
            with llm.ledger().database.read() as connection:
                money = spent(connection, pipeline.name)
        return dg.MaterializeResult(
            metadata=_metadata(status, money), check_results=[_check(status)]
        )

    return report


def write_report(lake: Lake, status: DatasetStatus) -> None:
    """Write one row per partition to the lake."""
    import pyarrow as pa

    schema = pa.schema(
        [
            ("partition", pa.string()),
            ("state", pa.string()),
            ("rows", pa.int64()),
            ("results", pa.int64()),
            ("rejected", pa.int64()),
            ("waiting", pa.int64()),
        ]
    )
    rows = [
        {name: getattr(one, name) for name in schema.names} | {"state": str(one.state)}
        for one in status.partitions
    ]
    lake.write(status.dataset, "report", None, pa.Table.from_pylist(rows, schema=schema))


def _metadata(status: DatasetStatus, money: "Spent") -> dict[str, Any]:
    return {
        "rows": status.rows,
        "results": status.results,
        "rejected": status.rejected,
        "waiting": status.waiting,
        "settled_usd": float(usd(money.settled)),
        "unknown_usd": float(usd(money.reserved)),
        "requests": money.requests,
        "report": dg.MetadataValue.md(markdown(status, money)),
    }


def markdown(status: DatasetStatus, money: "Spent") -> str:
    """Return the report as a person reads it."""
    states = Counter(str(one.state) for one in status.partitions)
    lines = [
        (
            f"**{status.dataset}**: {status.rows} rows, {status.results} results, "
            f"{status.rejected} rejected, {status.waiting} waiting."
        ),
        "",
        (
            f"Paid ${usd(money.settled):.6f} in {money.requests} requests; "
            f"${usd(money.reserved):.6f} open or of unknown outcome."
        ),
        "",
        "Partitions: " + ", ".join(f"{count} {state}" for state, count in states.most_common()),
        "",
        "| partition | state | rows | results | rejected | waiting |",
        "|---|---|---|---|---|---|",
        *(_line(one) for one in status.partitions[:_SHOWN_PARTITIONS]),
    ]
    if len(status.partitions) > _SHOWN_PARTITIONS:
        lines.append(f"\n... and {len(status.partitions) - _SHOWN_PARTITIONS} more partitions")
    return "\n".join(lines)


def _line(one: PartitionStatus) -> str:
    cells = (one.partition, one.state, one.rows, one.results, one.rejected, one.waiting)
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _check(status: DatasetStatus) -> dg.AssetCheckResult:
    missing = status.rows - status.results - status.rejected
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=missing == 0,
        metadata={
            "rows": status.rows,
            "results": status.results,
            "rejected": status.rejected,
            "without_outcome": missing,
        },
        description=(
            None
            if missing == 0
            else f"{missing} rows have no outcome yet; backfill the missing and changed partitions "
            f"or run `ondine-dagster run {status.dataset}`."
        ),
    )
