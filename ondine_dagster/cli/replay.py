"""`ondine-dagster run --replay`: partitions made again from what is recorded, with nobody asked."""

from __future__ import annotations

from collections.abc import Sequence

from ondine_dagster.assets.audit.replay import MODE_TAG, Mode, replayed_assets
from ondine_dagster.assets.shared.status import dataset_status
from ondine_dagster.cli.choice import Choice, choose
from ondine_dagster.cli.console import output
from ondine_dagster.cli.dagster_runs import DagsterRuns, RunFailure
from ondine_dagster.cli.interrupts import Interrupted, Interrupts, listening
from ondine_dagster.cli.progress import Display, display
from ondine_dagster.cli.run import INTERRUPT_WAIT_SECONDS, in_session
from ondine_dagster.cli.summary import RunSummary, show
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.wording import plural


def replay_command(called: str, partitions: Sequence[str]) -> int:
    """Replay partitions, all of the snapshot where none is named; return the exit code.

    The source is not read, and nothing is exported: a snapshot is the record of its source.
    """
    target = find_target(called)
    shown = display(target.settings)
    try:
        with listening(lambda: shown.interrupted(0), shown.abandon) as interrupts, shown:
            summary = _replay(target, partitions, shown, interrupts)
    except Interrupted as interrupted:
        return interrupted.exit_code
    show(output(), target, summary)
    for failure in summary.failures:
        shown.say(failure.message, style="red")
    return 1 if summary.failures else 0


def _replay(
    target: Target, partitions: Sequence[str], shown: Display, interrupts: Interrupts
) -> RunSummary:
    choice = Choice("all", tuple(partitions))
    status = dataset_status(target.pipeline, target.lake)
    work = choose(choice, status, target.pipeline, target.lake)
    wanted = {*work.whole, *work.reparse}
    keys = [one.partition for one in status.partitions if one.partition in wanted]
    rows = sum(one.rows for one in status.partitions if one.partition in wanted)
    much = f"{plural(len(keys), 'partition')}, {plural(rows, 'row')}"
    shown.say(f"to replay: {much}; nobody is asked")

    def go(runs: DagsterRuns) -> list[RunFailure]:
        failures = []
        stages = replayed_assets(target.pipeline)
        pieces = [*((stages, piece) for piece in runs.ranges(keys)), (("report",), None)]
        for assets, piece in pieces:
            failure = runs.execute(assets, piece)
            interrupts.raise_if_heard(INTERRUPT_WAIT_SECONDS if failure else 0)
            if failure is not None:
                failures.append(failure)
        return failures

    return in_session(target, shown, {MODE_TAG: Mode.REPLAY.value}, go)
