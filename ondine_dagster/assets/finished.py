"""What Dagster hears of a step that asks: an event for each finished partition, and its end.

An event is logged as soon as its partition is finished, so that pages turn green one by one, and
what is finished stays finished where the step fails.
"""

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import dagster as dg

from ondine_dagster.assets.budgets import BudgetWatch
from ondine_dagster.assets.judging import judge_step
from ondine_dagster.assets.keys import asset_key
from ondine_dagster.assets.metadata.partition_metadata import partition_metadata
from ondine_dagster.assets.monitoring.live import LiveStep
from ondine_dagster.assets.red import red_failure
from ondine_dagster.assets.shared.events import Metadata, dollars, version_tags
from ondine_dagster.assets.shared.partition_counts import RESPONSES, PartitionCounts
from ondine_dagster.assets.shared.partitions import event_key
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.verdicts.pilot import pilot_metadata, what_to_do
from ondine_dagster.engine.rows import DAMAGE
from ondine_dagster.ledger.estimates import Estimate, compared
from ondine_dagster.ledger.identity import digest
from ondine_dagster.observe.log_lines import FIELDS
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    from ondine_dagster.assets.audit.manifest import Manifest
    from ondine_dagster.assets.monitoring.signals import Signals
    from ondine_dagster.assets.verdicts.verdicts import Verdict
    from ondine_dagster.engine.engine import Engine
    from ondine_dagster.observe.destination import Destination

# An event takes 10 ms, and the end of the step repeats them all: an event waits up to this long,
# and in a step that ends before it is not logged twice.
_LOG_AFTER_SECONDS = 1.0


class Finished:
    """The partitions that a step has finished; what it learns of on its way is set by the step."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        pipeline: Pipeline,
        wanted: Sequence[str],
        code_versions: Mapping[str, str],
    ) -> None:
        """`wanted` are the assets of the step; `code_versions` are those of all three."""
        self._context = context
        self._pipeline = pipeline
        self._wanted = wanted
        self._code_versions = code_versions
        self._red: dict[str, PartitionCounts] = {}
        self._versions: dict[str, str] = {}
        self._unlogged: deque[tuple[str, Mapping[str, Metadata], str]] = deque()
        self._logging = Lock()
        self._logged_at = 0.0
        self.engine: Engine | None = None
        self.live: LiveStep | None = None
        self.budgets: BudgetWatch | None = None
        self.trace_host: Destination | None = None
        self.manifest: Manifest | None = None
        self.signals: Signals | None = None
        self.estimate = Estimate()
        self.not_asked: Counter[str] = Counter()
        self.verdicts: list[Verdict] | None = None
        self._requests = self._cost = 0
        self.asked = 0  # questions that were sent

    def beat(self) -> None:
        """Do what is done now and then. Called by the heartbeat's thread, and at the end."""
        self.log_waiting_events()
        while self.live is not None and self.live.progress.warnings:
            said = self._pipeline.scrub(self.live.progress.warnings.popleft())
            warn = self.signals.warn if self.signals else self._context.log.warning
            warn(f"{self._pipeline.name}: {said}")
        if self.budgets is not None:
            self.budgets.beat()

    def partition(self, partition: str, counts: PartitionCounts, data_version: str) -> None:
        """Log the events of a finished partition, or remember it as red."""
        if self.live is not None:
            self.live.finish(counts)
        if self.manifest is not None:
            self.manifest.partition(partition, counts, data_version)
        if self.signals is not None:
            self.signals.partition(partition, counts)
        self._requests += counts.requests
        self.asked += counts.questions
        self._cost += counts.cost
        log = self._context.log.warning if counts.red else self._context.log.info
        name = self._pipeline.name
        fields = {"run_id": self._context.run.run_id, **_partition_fields(name, partition, counts)}
        log(_partition_line(name, partition, counts), extra={FIELDS: fields})
        if counts.red:
            self._red[partition] = counts
            return
        shown = {asset: partition_metadata(self._pipeline, asset, counts) for asset in self._wanted}
        if RESPONSES in shown and counts.requests:
            shown[RESPONSES] |= self._trace(partition)
        for asset, metadata in shown.items():
            # for the final event of the step, which repeats the one logged here
            self._context.add_asset_metadata(
                metadata,
                asset_key=asset_key(self._pipeline.name, asset),
                partition_key=event_key(self._pipeline, partition),
            )
        self._versions[partition] = data_version
        self._unlogged.append((partition, shown, data_version))
        self.log_waiting_events()

    def judge(self) -> None:
        """Log the verdicts of the checks, once."""
        if self.verdicts is None:
            self.verdicts = judge_step(self._context, self._pipeline, self._wanted, self.budgets)

    def observe(self, metadata: Metadata) -> None:
        """Show what has no partition with the asset that spends, also where the step fails."""
        key = asset_key(self._pipeline.name, RESPONSES)
        self._context.log_event(dg.AssetObservation(key, metadata=metadata))

    def log_waiting_events(self) -> None:
        """Log what waits, unless events were logged a moment ago. May be called by any thread."""
        if time.monotonic() - self._logged_at >= _LOG_AFTER_SECONDS:
            self.log_events()

    def log_events(self) -> None:
        """Log the events of the finished partitions that have none yet."""
        with self._logging:
            while self._unlogged:
                self._log(*self._unlogged[0])
                self._unlogged.popleft()
            self._logged_at = time.monotonic()

    def _log(self, partition: str, shown: Mapping[str, Metadata], data_version: str) -> None:
        for asset, metadata in shown.items():
            self._context.log_event(
                dg.AssetMaterialization(
                    asset_key=asset_key(self._pipeline.name, asset),
                    partition=event_key(self._pipeline, partition),
                    metadata=metadata,
                    tags=version_tags(
                        self._code_versions[asset], self._data_version(asset, data_version)
                    ),
                )
            )

    def _trace(self, partition: str) -> Metadata:
        """Return where to find the requests that this run made for a partition."""
        if self.trace_host is None:
            return {}
        from ondine_dagster.assets.monitoring.traces import trace_metadata

        run_id, name = self._context.run.run_id, self._pipeline.name
        return trace_metadata(self.trace_host, run_id, name, partition)

    def _data_version(self, asset: str, rows: str) -> str:
        """Return the version of an asset: what is made of answers depends on local settings."""
        if asset == RESPONSES:
            return rows
        return digest([rows, self._pipeline.local_version]).hex()[:16]

    def fail_if_red(self) -> None:
        """Fail the step where a partition is red, or a retry could not ask.

        The good partitions have their events already.
        """
        if not self._red and not self.not_asked:
            return
        stopped = self.engine.stopped if self.engine else None
        pilot = self.engine.pilot if self.engine else None
        raise red_failure(
            self._pipeline.name,
            self._red,
            self._pipeline.scrub(stopped.message) if stopped else None,
            self._money(),
            what_to_do(self._pipeline, pilot),
            self.not_asked,
        )

    def results(self) -> Iterator[dg.MaterializeResult[None]]:
        """Yield the step's final results.

        Dagster makes an event per partition of each, all with the same version: of one partition
        its own, of a range that of all together.
        """
        versions = [self._versions[partition] for partition in sorted(self._versions)]
        rows = versions[0] if len(versions) == 1 else digest(versions).hex()[:16]
        for asset in self._wanted:
            yield dg.MaterializeResult(
                asset_key=asset_key(self._pipeline.name, asset),
                data_version=dg.DataVersion(self._data_version(asset, rows)),
                metadata=self._money() if asset == RESPONSES else {},
            )

    def _money(self) -> Metadata:
        """Return where the budgets stand, and what the step cost beside what was expected."""
        metadata = self.budgets.metadata() if self.budgets else {}
        if self.manifest is not None:
            metadata["manifest"] = dg.MetadataValue.path(str(self.manifest.path))
        if self.estimate.requests:
            asked = None if self._pipeline.packing is None else self.asked
            metadata["estimate"] = compared(self.estimate, self._requests, self._cost, asked)
        checked = self.engine.checked if self.engine else None
        if checked is not None and checked.listed is not None:
            metadata["models_listed_by"] = str(checked.listed)
        if checked is not None and checked.credit is not None:
            metadata["key_credit_left_usd"] = float(checked.credit)
        return metadata | pilot_metadata(self._pipeline, self.engine.pilot if self.engine else None)


def _partition_line(name: str, partition: str, counts: PartitionCounts) -> str:
    too_many = "TOO MANY REJECTED, " if counts.too_many_rejected else ""
    state = "NOT COMPLETE, " if counts.incomplete else too_many
    waiting = f", {counts.unanswered} waiting" if counts.unanswered else ""
    skipped = f"{counts.skipped} skipped, " if counts.skipped else ""
    results = counts.results - counts.skipped
    repaired = _repaired(counts) if counts.repaired else ""
    return (
        f"{name} {partition}: {state}{plural(counts.rows, 'row')}, {plural(results, 'result')}, "
        f"{skipped}{counts.rejected_for_good} rejected{waiting}, {counts.reused} already paid, "
        f"{repaired}${dollars(counts.cost):.6f}"
    )


def _partition_fields(name: str, partition: str, counts: PartitionCounts) -> dict[str, object]:
    """Return what the line says, for programs."""
    return {
        "event": "partition_finished",
        "dataset": name,
        "partition": partition,
        "rows": counts.rows,
        "results": counts.results - counts.skipped,
        "rejected": counts.rejected_for_good,
        "waiting": counts.unanswered,
        "skipped": counts.skipped,
        "reused": counts.reused,
        "requests": counts.requests,
        "cost_usd": dollars(counts.cost),
        "failed": counts.red,
    }


def _repaired(counts: PartitionCounts) -> str:
    """Return how many rows were asked again out of a pack, and what was wrong with their part."""
    kinds = (f"{rows} {flag.removeprefix(DAMAGE)}" for flag, rows in counts.damages.most_common())
    why = ", ".join(kinds).replace("_", " ")
    return f"{counts.repaired} repaired{f' ({why})' if why else ''}, "
