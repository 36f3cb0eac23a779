"""`ondine-dagster retry`: asks again for rejected rows of one dataset, in this process."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ondine_dagster.assets.keys import last_assets
from ondine_dagster.assets.retry import RETRY_TAG, Retry, RetryPlan, counted
from ondine_dagster.assets.rows.purged_files import texts_gone
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState, dataset_status
from ondine_dagster.cli.choice import Choice, choose
from ondine_dagster.cli.console import output
from ondine_dagster.cli.dagster_runs import DagsterRuns, RunFailure
from ondine_dagster.cli.interrupts import Interrupted, Interrupts, listening
from ondine_dagster.cli.progress import Display, display
from ondine_dagster.cli.run import INTERRUPT_WAIT_SECONDS, in_session
from ondine_dagster.cli.summary import RunSummary, show, show_next
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.llm.asking_again import Selection, selection
from ondine_dagster.wording import plural

# those of the others were made by another declaration, of other rows, or not at all
_READY = (PartitionState.DONE, PartitionState.FAILED, PartitionState.UNPARSED)


def retry_command(called: str, classes: Collection[str], partitions: Sequence[str]) -> int:
    """Ask again, show how it goes and what it came to; return the exit code.

    Raises OndineError for a class or partition that there is not, and where a partition that was
    named has to be run first.
    """
    target, chosen = find_target(called), selection(classes)
    status = dataset_status(target.pipeline, target.lake)
    keys = _partitions(target, status, partitions)
    with reading(target.settings.ledger_path) as connection:
        retry = Retry(target.pipeline, target.lake, chosen)
        plan = retry.plan(keys, connection)
    shown, again = display(target.settings), target.command(_call(target, chosen, partitions))
    for line in _announcement(target, status, plan, retry.provider.model, partitions):
        shown.say(line)
    if not plan.rows:
        return 0
    drain = target.declared.dataset.limits.drain_seconds
    try:
        with listening(lambda: shown.interrupted(drain), shown.abandon) as interrupts, shown:
            summary = _retry(target, chosen, plan, shown, interrupts)
    except Interrupted as interrupted:
        shown.say(f"Interrupted. Go on with: {again}")
        return interrupted.exit_code
    console = output()
    show(console, target, summary)
    show_next(console, target, summary.status, [target.command(f"status {target.called}")])
    for failure in summary.failures:
        shown.say(failure.message, style="red")
    return 1 if summary.failures else 0


def _retry(
    target: Target, chosen: Selection, plan: RetryPlan, shown: Display, interrupts: Interrupts
) -> RunSummary:
    def go(runs: DagsterRuns) -> list[RunFailure]:
        shown.expect(len(plan.partitions), plan.rows)
        failures = []
        pieces = [(TRIO, piece) for piece in runs.ranges(plan.partitions)]
        last = [((asset,), None) for asset in last_assets(target.pipeline)]
        for stages, piece in (*pieces, *last):
            failure = runs.execute(stages, piece)
            interrupts.raise_if_heard(INTERRUPT_WAIT_SECONDS if failure else 0)
            if failure is not None:
                failures.append(failure)
                if not failure.only_red:  # it would meet the next range as well
                    break
        return failures

    return in_session(target, shown, {RETRY_TAG: str(chosen)}, go)


def _partitions(target: Target, status: DatasetStatus, named: Sequence[str]) -> list[str]:
    """Return the partitions to look at: those that are named, else all with files of today."""
    ready = status.in_state(*_READY)
    if not named:
        # nobody can tell which rows were rejected
        return [key for key in ready if not texts_gone(target.lake, target.name, key)]
    work = choose(Choice(partitions=tuple(named)), status, target.pipeline, target.lake)
    wanted = {*work.whole, *work.reparse}
    for one in status.partitions:
        if one.partition in wanted and one.state not in _READY:
            again = target.command(f"run {target.called} --partition {one.partition}")
            raise OndineError(
                f"Partition {one.partition} is {one.state}: it has no answers to the present "
                f"question about its present rows. Run it first: {again}"
            )
    return [key for key in ready if key in wanted]


def _announcement(
    target: Target,
    status: DatasetStatus,
    plan: RetryPlan,
    model: str,
    partitions: Sequence[str],
) -> list[str]:
    lines = [plan.sentence(model)]
    if plan.left_out:
        named = selection(plan.left_out)
        again = target.command(_call(target, named, partitions))
        lines.append(f"left out: {counted(plan.left_out)}. To ask for them all the same: {again}")
    if others := len(status.partitions) - len(status.in_state(*_READY)):
        again = target.command(f"run {target.called}")
        lines.append(f"not looked at: {plural(others, 'partition')} to run first: {again}")
    return lines


def _call(target: Target, chosen: Selection, partitions: Sequence[str]) -> str:
    classes = "".join(f" --class {name}" for name in sorted(chosen.names))
    return f"retry {target.called}{classes}" + "".join(f" --partition {k}" for k in partitions)
