"""The text file that each run leaves for Prometheus, as the collector of node_exporter reads it.

One file for each dataset, replaced by its next run: so no metric of a run that is long gone stays.
https://github.com/prometheus/node_exporter#textfile-collector
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.assets.shared.partition_counts import PartitionCounts
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.llm.prices import usd
from ondine_dagster.observe import metrics
from ondine_dagster.observe.metrics import Page
from ondine_dagster.storage.atomic import ensure_folder, write_atomically

if TYPE_CHECKING:
    from ondine_dagster.ledger.totals import Spent

FOLDER = "metrics"


class RunMetrics:
    """What one run came to, partition by partition."""

    def __init__(self, dataset: str, data_dir: Path) -> None:
        """The file is below `data_dir`."""
        self.path = data_dir / FOLDER / f"ondine_{dataset}.prom"
        self._dataset = dataset
        self._began = time.monotonic()
        self.progress = Progress()  # of the engine, once it asks
        self.rows: Counter[str] = Counter(ok=0, rejected=0, waiting=0, skipped=0)
        self._partitions: Counter[str] = Counter(finished=0, failed=0)
        self.requests = self.cost = 0
        self._retries = 0

    def partition(self, counts: PartitionCounts) -> None:
        """Count a partition that has been written."""
        self.rows["ok"] += counts.results - counts.skipped
        self.rows["skipped"] += counts.skipped
        self.rows["rejected"] += counts.rejected_for_good
        self.rows["waiting"] += counts.unanswered
        self._partitions["failed" if counts.red else "finished"] += 1
        self.requests += counts.requests
        self._retries += counts.retries
        self.cost += counts.cost

    def asked_again(self) -> None:
        """Count rows that `verify` has asked; one without an answer keeps the one it had."""
        progress = self.progress
        answered = progress.outcomes[Outcome.ANSWERED]
        self.rows["ok"] += answered
        self.rows["waiting"] += progress.outcomes.total() - answered
        self.requests += progress.requests
        self._retries += progress.retries
        self.cost += progress.cost

    def write(self, total: Spent, *, success: bool) -> None:
        """Write the file; `total` is what all runs have used. Raises OSError."""
        page, dataset = Page(), self._dataset
        for outcome, count in self.rows.items():
            page.add(metrics.ROWS, count, dataset=dataset, outcome=outcome)
        for state, count in self._partitions.items():
            page.add(metrics.PARTITIONS, count, dataset=dataset, state=state)
        page.add(metrics.LAST_REQUESTS, self.requests, dataset=dataset)
        page.add(metrics.RETRIES, self._retries, dataset=dataset)
        page.add(metrics.LAST_COST, usd(self.cost), dataset=dataset)
        seconds = round(time.monotonic() - self._began, 3)
        page.add(metrics.LAST_SECONDS, seconds, dataset=dataset)
        page.histogram(metrics.LAST_LATENCY, self.progress.latencies, dataset=dataset)
        failed = self._partitions["failed"] > 0
        page.add(metrics.SUCCESS, int(success and not failed), dataset=dataset)
        page.add(metrics.ENDED, round(time.time(), 3), dataset=dataset)
        page.add(metrics.ALL_COST, usd(total.settled), dataset=dataset)
        page.add(metrics.ALL_REQUESTS, total.requests, dataset=dataset)
        ensure_folder(self.path.parent)
        write_atomically(self.path, page.text().encode())
