"""`ondine-dagster verify`: asks some answered rows again and says how many answers differ."""

from __future__ import annotations

from secrets import token_hex

import click

from ondine_dagster.assets.audit.replay import MODE_TAG, Mode
from ondine_dagster.assets.audit.verify import read_drift
from ondine_dagster.assets.audit.verify_sample import (
    ALL_PARTITIONS,
    FROM_TAG,
    MAX_DRIFT_TAG,
    ROWS_TAG,
    SEED_TAG,
)
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.assets.shared.status import PartitionState, dataset_status
from ondine_dagster.cli.dagster_runs import DagsterRuns, RunFailure
from ondine_dagster.cli.interrupts import Interrupted, listening
from ondine_dagster.cli.progress import display
from ondine_dagster.cli.run import INTERRUPT_WAIT_SECONDS, in_session
from ondine_dagster.cli.target import find_target
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.prices import money
from ondine_dagster.wording import counted

_READY = (PartitionState.DONE, PartitionState.FAILED, PartitionState.UNPARSED)
_SHOWN = 10


def verify_command(called: str, rows: int, max_drift: float | None, seed: str | None) -> int:
    """Ask `rows` rows again, show what differs; return the exit code: 0 where little does.

    `max_drift` is in per cent; without it the declaration decides. Raises OndineError where nothing
    was answered yet.
    """
    target = find_target(called)
    shown = display(target.settings)
    status = dataset_status(target.pipeline, target.lake)
    keys = status.in_state(*_READY)
    if not keys:
        again = target.command(f"run {target.called}")
        raise OndineError(f"Dataset {target.name} has no answers to compare with yet: {again}")
    drain = target.declared.dataset.limits.drain_seconds

    def go(runs: DagsterRuns) -> list[RunFailure]:
        # Dagster wants a partition of a run; its tag says that the rows are of all
        failure = runs.execute(TRIO, next(runs.ranges(keys[:1])))
        interrupts.raise_if_heard(INTERRUPT_WAIT_SECONDS if failure else 0)
        return [failure] if failure else []

    seed = seed or token_hex(4)
    tags = {
        MODE_TAG: Mode.VERIFY.value,
        FROM_TAG: ALL_PARTITIONS,
        ROWS_TAG: str(rows),
        SEED_TAG: seed,
        **({} if max_drift is None else {MAX_DRIFT_TAG: str(max_drift)}),
    }
    try:
        with listening(lambda: shown.interrupted(drain), shown.abandon) as interrupts, shown:
            summary = in_session(target, shown, tags, go)
    except Interrupted as interrupted:
        return interrupted.exit_code
    for failure in summary.failures:
        shown.say(failure.message, style="red")
    allowed = target.pipeline.dataset.checks.max_drift
    drift = None if summary.failures else read_drift(target.lake, target.name)
    if drift is None:
        return 1
    click.echo(drift.text(allowed))
    scrub = target.pipeline.scrub  # keys of rows, too
    for partition, example in drift.examples[:_SHOWN]:
        click.echo(scrub(f"  {partition}: {example}"))
    for partition, why in drift.unclear[:_SHOWN]:
        click.echo(scrub(f"  {partition}: cannot be compared: {why}"))
    if len(drift.models) > 1 or drift.models.keys() - status.models.keys():
        now, before = (counted(one, _SHOWN) for one in (drift.models, status.models))
        click.echo(f"models that answered now: {now}; before: {before or 'not known'}")
    paid = money(summary.this_run.settled)
    click.echo(f"paid {paid}; no table has changed; the same rows again: --seed {seed}")
    return 0 if drift.passed(allowed) else 1
