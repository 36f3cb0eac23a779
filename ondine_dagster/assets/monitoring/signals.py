"""What a step that asks tells of itself: lines of its log about single rows, and its numbers.

Nothing here is waited for: lines are made and logged in a thread of their own, and what that cannot
take is dropped and counted. Rows that end well cost nothing unless somebody asked for such lines.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from ondine_dagster.assets.monitoring.observer import Observing, observers_of
from ondine_dagster.assets.monitoring.run_metrics import RunMetrics
from ondine_dagster.assets.rows.row_ends import ReadRow, row_ends
from ondine_dagster.assets.shared.partition_counts import PartitionCounts
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.stage import WRITTEN, WriteLine, asked_level
from ondine_dagster.engine.events import (
    Event,
    Hear,
    PartitionFinished,
    RowEnded,
    RunEnded,
    RunStarted,
    Warned,
)
from ondine_dagster.engine.progress import Progress
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.totals import Spent, spent
from ondine_dagster.llm.prices import usd
from ondine_dagster.observe.log_lines import FIELDS, Line, lines_of
from ondine_dagster.observe.relay import END_SECONDS, Relay
from ondine_dagster.settings import LOG_FORMAT
from ondine_dagster.wording import plural

# of each error code so many rows are named in the log, unless its level is debug
ROWS_OF_A_CODE = 5


class Signals:
    """A context manager round the asking of one step."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        pipeline: Pipeline,
        write: WriteLine | None = None,
    ) -> None:
        """`write` takes lines beside Dagster's log. Raises OndineError for a level that is none."""
        self._log = context.log
        self._run_id = context.run.run_id
        self._name = pipeline.name
        level = asked_level(pipeline.settings(), context.run.tags) or logging.INFO
        self._level = level
        self._debug = level <= logging.DEBUG
        self._scrub = pipeline.scrub
        self._told: Counter[str | None] = Counter()
        self._ledger = pipeline.settings().ledger_path
        self._metrics = RunMetrics(pipeline.name, pipeline.settings().data_dir)
        self._observing = [Observing(one) for one in observers_of(pipeline)]
        # Dagster's log takes some tens or hundreds of lines a second: others do not wait for it
        self._aside = None if write is None else Relay(partial(self._lines_to, write), "row lines")
        self._lines = Relay(partial(self._lines_to, self._write), "row log")

    @property
    def hear(self) -> Hear | None:
        """Return who is told of each request; None where nobody wants to know."""
        return self._tell if self._debug or self._observing else None

    def _tell(self, event: Event) -> None:
        if self._debug:
            self._put(event)
        self._observe(event)

    def _put(self, event: Event) -> None:
        self._lines.put(event)
        if self._aside is not None:
            self._aside.put(event)

    def _observe(self, event: Event) -> None:
        for one in self._observing:
            one.tell(event)

    def started(self, partitions: int, rows: int, progress: Progress) -> None:
        """Take in that the run begins to ask; `progress` goes on."""
        self._metrics.progress = progress
        self._observe(
            RunStarted(run_id=self._run_id, dataset=self._name, partitions=partitions, rows=rows)
        )

    def warn(self, text: str) -> None:
        """Log a warning, and tell of it."""
        self._log.warning(text)
        self._observe(Warned(run_id=self._run_id, dataset=self._name, message=text))

    def rows(self, partition: str, keys: Sequence[str], read: Sequence[ReadRow]) -> None:
        """Take in rows that have ended, with what their answers say."""
        everything = self._debug or bool(self._observing)
        for event in row_ends(self._run_id, self._name, partition, keys, read, all_rows=everything):
            self._observe(event)
            if self._debug or (event.code is not None and self._is_one_of_few(event)):
                self._put(event)

    def partition(self, partition: str, counts: PartitionCounts) -> None:
        """Take in a partition whose files are written."""
        self._metrics.partition(counts)
        self._observe(
            PartitionFinished(
                run_id=self._run_id,
                dataset=self._name,
                partition=partition,
                rows=counts.rows,
                results=counts.results - counts.skipped,
                rejected=counts.rejected_for_good,
                waiting=counts.unanswered,
                skipped=counts.skipped,
                reused=counts.reused,
                requests=counts.requests,
                cost_usd=usd(counts.cost),
                failed=counts.red,
            )
        )

    def asked_again(self) -> None:
        """Take in what `verify` has asked: no partition is written then."""
        self._metrics.asked_again()

    def _is_one_of_few(self, event: RowEnded) -> bool:
        self._told[event.code] += 1
        return self._told[event.code] <= ROWS_OF_A_CODE

    def _lines_to(self, write: WriteLine, event: Event) -> None:
        for line in lines_of(event, self._scrub):
            if line.level >= self._level:
                write(line)

    def _write(self, line: Line) -> None:
        written = {} if self._aside is None else {WRITTEN: True}
        self._log.log(line.level, line.text, extra={FIELDS: line.fields, **written})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._write_metrics(success=error is None)
        interrupted = error is not None and not isinstance(error, Exception)
        self._end_observing(error, 0 if interrupted else END_SECONDS)
        aside = self._aside.close(END_SECONDS) if self._aside is not None else None
        lost = self._lines.close(0 if interrupted else END_SECONDS)
        for code, count in self._told.items():
            if count > ROWS_OF_A_CODE:
                more = plural(count - ROWS_OF_A_CODE, "more row")
                self._log.info(f"{self._name}: {more} rejected: {code}. See rejected_rows.")
        if missing := lost.dropped + lost.left:
            elsewhere = f" With {LOG_FORMAT}=json standard error has them."
            if aside is not None:
                gone = aside.dropped + aside.left
                elsewhere = f" Standard error has {f'all but {gone:,}' if gone else 'all'} of them."
            self._log.warning(
                f"{self._name}: Dagster's log is slow, and {missing:,} lines about rows are not in "
                f"it.{elsewhere}"
            )
        if lost.error is not None and error is None:  # a bug of ours, or of a logger
            raise lost.error

    def _end_observing(self, error: BaseException | None, seconds: float) -> None:
        done = self._metrics
        self._observe(
            RunEnded(
                run_id=self._run_id,
                dataset=self._name,
                rows=done.rows.total(),
                requests=done.requests,
                cost_usd=usd(done.cost),
                error=None if error is None else f"{type(error).__name__}: {error}",
            )
        )
        until = time.monotonic() + seconds  # for all of them together
        for one in self._observing:
            if problem := one.close(max(0, until - time.monotonic())):
                self._log.warning(f"{self._name}: {self._scrub(problem)}")

    def _write_metrics(self, *, success: bool) -> None:
        """Leave the numbers of the run for Prometheus; that they cannot be left fails no run."""
        try:
            with reading(self._ledger) as connection:
                total = spent(connection, self._name) if connection else Spent()
            self._metrics.write(total, success=success)
        except (OSError, OndineError, SQLAlchemyError) as error:
            self._log.warning(f"{self._name}: no metrics of this run could be written: {error}")
