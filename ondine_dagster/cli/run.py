"""`ondine-dagster run`: snapshot, partitions and report of one dataset, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import MappingProxyType

from ondine_dagster.assets.keys import last_assets
from ondine_dagster.assets.monitoring.live import watching
from ondine_dagster.assets.responses import CALL_TAG
from ondine_dagster.assets.shared.partition_counts import REJECTED, RESPONSES, RESULTS
from ondine_dagster.assets.shared.status import DatasetStatus, dataset_status
from ondine_dagster.cli.budgets import standings_of
from ondine_dagster.cli.choice import Choice, Work, choose
from ondine_dagster.cli.console import output
from ondine_dagster.cli.dagster_home import fail_dead_runs, new_call_tags, open_instance
from ondine_dagster.cli.dagster_runs import DagsterRuns, RunFailure
from ondine_dagster.cli.interrupts import Interrupted, Interrupts, listening
from ondine_dagster.cli.progress import Display, display
from ondine_dagster.cli.summary import RunSummary, problems, show, show_next
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.estimates import find
from ondine_dagster.ledger.ledger import Ledger, close_ledger, open_ledger
from ondine_dagster.ledger.totals import spent, unsettled
from ondine_dagster.llm.prices import money
from ondine_dagster.observe.destination import destination_of
from ondine_dagster.wording import plural

SNAPSHOT = ("snapshot",)
REPARSE = (RESULTS, REJECTED)
WHOLE = ("raw_rows", "prompts", RESPONSES, *REPARSE)
INTERRUPT_WAIT_SECONDS = 0.2


def run_command(
    called: str,
    choice: Choice,
    show_more: Callable[[Target, RunSummary], None] = lambda target, summary: None,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Run a dataset, show how it goes and what it came to; return the exit code.

    `show_more` may add to the summary; the Dagster runs have `tags` besides their own. Raises
    OndineError where the run cannot even begin.
    """
    target = find_target(called)
    shown = display(target.settings)
    drain = target.declared.dataset.limits.drain_seconds
    try:
        with listening(lambda: shown.interrupted(drain), shown.abandon) as interrupts, shown:
            shown.say(f"data folder  {target.settings.data_dir}")
            shown.say(f"DAGSTER_HOME {target.settings.dagster_home}")
            summary = run_dataset(target, choice, shown, interrupts, tags)
    except Interrupted as interrupted:
        shown.say(f"Interrupted. Go on with: {target.command(f'run {target.called}')}")
        return interrupted.exit_code
    found = problems(target, summary, choice)
    console = output()
    show(console, target, summary)
    show_more(target, summary)
    show_next(console, target, summary.status, [target.command(f"status {target.called}")])
    for problem in found:
        shown.say(problem, style="red")
    return 1 if found else 0


def run_dataset(
    target: Target,
    choice: Choice,
    shown: Display,
    interrupts: Interrupts,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> RunSummary:
    """Run what `choice` says, in runs with `tags`; return what it came to.

    Raises OndineError where the snapshot cannot be taken, Interrupted after a signal.
    """

    def go(runs: DagsterRuns) -> list[RunFailure]:
        return _Run(target, choice, runs, shown, interrupts).go()

    return in_session(target, shown, tags, go)


def in_session(
    target: Target,
    shown: Display,
    more_tags: Mapping[str, str],
    go: Callable[[DagsterRuns], list[RunFailure]],
) -> RunSummary:
    """Open ledger and Dagster instance, let `go` run what it likes, and say what it came to.

    Its runs have `more_tags` and those of one call. Raises what `go` raises.
    """
    began = time.monotonic()
    destination_of(target.settings)  # refused before anything begins
    with ExitStack() as stack:
        ledger = open_ledger(target.settings.ledger_path)
        stack.callback(close_ledger, target.settings.ledger_path)
        target.pipeline.bind(ledger, target.lake)
        tags = {**new_call_tags(), **more_tags}
        instance = stack.enter_context(open_instance(target.settings))
        if dead := fail_dead_runs(instance):
            shown.say(f"{plural(dead, 'earlier run')} had died and is marked as failed.")
        stack.enter_context(watching(shown.asking))
        runs = DagsterRuns(target, instance, tags, shown.log, shown.doing)
        try:
            failures = go(runs)
        except Interrupted:
            shown.say(_paid(ledger, target.name, tags[CALL_TAG]))
            raise
        return _summary(target, ledger, shown, tags[CALL_TAG], failures, time.monotonic() - began)


class _Run:
    """The order of things."""

    def __init__(
        self,
        target: Target,
        choice: Choice,
        runs: DagsterRuns,
        shown: Display,
        interrupts: Interrupts,
    ) -> None:
        self._target = target
        self._choice = choice
        self._runs = runs
        self._shown = shown
        self._interrupts = interrupts

    def go(self) -> list[RunFailure]:
        """Take the snapshot, run the partitions, write the report; return what failed."""
        if failure := self._execute(SNAPSHOT):
            raise OndineError(failure.message)
        status = dataset_status(self._target.pipeline, self._target.lake)
        work = choose(self._choice, status, self._target.pipeline, self._target.lake)
        self._announce(status, work)
        failures = self._partitions(work)
        for asset in last_assets(self._target.pipeline):
            if failure := self._execute((asset,)):
                failures.append(failure)
        return failures

    def _announce(self, status: DatasetStatus, work: Work) -> None:
        rows = {one.partition: one.rows for one in status.partitions}
        self._shown.expect(len(work.whole), sum(rows[key] for key in work.whole))
        rows_to_run = sum(rows[key] for key in (*work.whole, *work.reparse))
        self._shown.say(
            f"to run: {work.partitions} of {plural(len(status.partitions), 'partition')}, "
            f"{plural(rows_to_run, 'row')}"
        )

    def _partitions(self, work: Work) -> list[RunFailure]:
        failures = []
        for stages, keys in ((REPARSE, work.reparse), (WHOLE, work.whole)):
            for piece in self._runs.ranges(keys):
                failure = self._execute(stages, piece)
                if failure is None:
                    continue
                failures.append(failure)
                if not failure.only_red:  # it would meet the next range as well
                    return failures
        return failures

    def _execute(
        self, stages: tuple[str, ...], partitions: tuple[str, str] | None = None
    ) -> RunFailure | None:
        failure = self._runs.execute(stages, partitions)
        self._interrupts.raise_if_heard(INTERRUPT_WAIT_SECONDS if failure else 0)
        return failure


def _paid(ledger: Ledger, name: str, call: str) -> str:
    with ledger.database.read() as connection:
        found = spent(connection, name, f"run:{call}")
    lost = f", and up to {money(found.reserved)} for answers nobody saw" if found.reserved else ""
    return f"Paid until now: {money(found.settled)} for {plural(found.requests, 'request')}{lost}."


def _summary(
    target: Target,
    ledger: Ledger,
    shown: Display,
    call: str,
    failures: list[RunFailure],
    duration: float,
) -> RunSummary:
    with ledger.database.read() as connection:
        return RunSummary(
            status=dataset_status(target.pipeline, target.lake),
            failures=tuple(failures),
            this_run=spent(connection, target.name, f"run:{call}"),
            in_total=spent(connection, target.name),
            unsettled=unsettled(connection, target.name),
            recorded=find(connection, target.name, call),
            budgets=tuple(standings_of(target, call)),
            requests=shown.total("requests"),
            retries=shown.total("retries"),
            seconds=duration,
        )
