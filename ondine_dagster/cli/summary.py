"""What a run came to, as a person reads it, and whether that is all."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ondine_dagster.assets.reporting.report_page import report_file
from ondine_dagster.assets.shared.partition_counts import REJECTED
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState
from ondine_dagster.cli.budgets import budgets_table
from ondine_dagster.cli.choice import Choice
from ondine_dagster.cli.console import aligned, seconds
from ondine_dagster.cli.dagster_runs import RunFailure
from ondine_dagster.cli.target import Target, program
from ondine_dagster.ledger.budgets import Standing
from ondine_dagster.ledger.estimates import Recorded, compared
from ondine_dagster.ledger.totals import Spent, Unsettled
from ondine_dagster.llm.asking_again import retry_options
from ondine_dagster.llm.prices import money
from ondine_dagster.settings import find_project_root
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.partitioning import UNASSIGNED
from ondine_dagster.wording import counted, plural

_WITHOUT_FILES = (PartitionState.MISSING, PartitionState.CHANGED)
_SHOWN_CODES = 8
_SHOWN_MODELS = 5
_WHY = ["_outcome", "_error_class", "_error_code"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One call of `run`: where the dataset stands, and what it cost (picodollars).

    `recorded` is what it was expected to use, None where nobody was asked. `requests` were sent in
    this call, `retries` of them repeat another.
    """

    status: DatasetStatus
    failures: tuple[RunFailure, ...]
    this_run: Spent
    in_total: Spent
    unsettled: Unsettled
    recorded: Recorded | None
    budgets: tuple[Standing, ...]
    requests: int
    retries: int
    seconds: float


def problems(target: Target, summary: RunSummary, choice: Choice) -> list[str]:
    """Return why a run of `choice` is no success, each with its remedy; empty where it is one."""
    status, again = summary.status, target.command(f"run {target.called}")
    found = [failure.message for failure in summary.failures]
    only_red = all(failure.only_red for failure in summary.failures)
    if found and (waiting_again(status) or not only_red):  # else retry is the way on
        found.append(f"When that is solved, go on with: {again}{choice.options}")
    missing = status.in_state(*_WITHOUT_FILES)
    if missing and not summary.failures:
        found.append(
            f"{plural(len(missing), 'partition')} did not run: its rows have no outcome yet. "
            f"Run what is missing: {again}"
        )
    failed = waiting_again(status)
    if failed and not summary.failures:
        found.append(
            f"{plural(len(failed), 'partition')} failed: {plural(status.waiting, 'row')} wait for "
            f"another run. Run them: {again} --failed"
        )
    if too_many_rejected(status) and not summary.failures:
        retry = retry_of_rejected(target, status)
        way_on = f" Ask again for those that may succeed: {retry}" if retry else ""
        found.append(f"Too many rows are rejected.{way_on}")
    stale = [one for one in status.partitions if one.state is PartitionState.STALE and one.waiting]
    if stale:
        found.append(
            f"{plural(len(stale), 'stale partition')} has rows without an outcome. Ask them again "
            f"under the declaration as it is now: {again} --all"
        )
    return found


def show(console: Console, target: Target, summary: RunSummary) -> None:
    """Print rows by outcome, money, budgets, and where things are."""
    console.print()
    console.print(Text(target.name, style="bold"))
    console.print(rows_by_outcome(target.lake, summary.status))
    console.print()
    console.print(_money(summary))
    if summary.budgets:
        console.print()
        console.print(budgets_table(summary.budgets))
    for line in _remarks(target, summary):
        console.print(Text(line))
    console.print()
    console.print(_places(target, summary))


def show_next(
    console: Console, target: Target, status: DatasetStatus, first: Sequence[str] = ()
) -> None:
    """Print what to do next, `first` before all else."""
    console.print()
    console.print(Text("Next:", style="bold"))
    for line in (*first, *next_commands(target, status)):
        console.print(Text(f"  {line}"))


def rows_by_outcome(lake: Lake, status: DatasetStatus) -> Text:
    """Return rows by outcome, and partitions by state."""
    without = sum(one.rows for one in status.partitions if one.state in _WITHOUT_FILES)
    waiting = status.waiting - without
    rejected = status.rejected - waiting
    rows = [
        ("rows", status.rows + status.unassigned, ""),
        ("  results", status.results, ""),
        *([("  skipped", status.skipped, "`when` is not true")] if status.skipped else []),
        ("  rejected", rejected, _codes(lake, status) if rejected else ""),
    ]
    if waiting:
        rows.append(("  waiting", waiting, "not asked, or held: another run takes them up"))
    if without:
        rows.append(("  not run", without, ""))
    if status.open_rows:
        rows.append(("  open", status.open_rows, "their time window is not over yet"))
    if status.unassigned:
        remark = f"rejected: see rejected_rows, partition {UNASSIGNED}"
        rows.append(("  no partition", status.unassigned, remark))
    if len(status.models) > 1:  # perhaps its provider took another one
        rows.append(("models", len(status.models), counted(status.models, _SHOWN_MODELS)))
    rows.append(("partitions", len(status.partitions), states(status)))
    return aligned([(name, f"{count:,}", remark) for name, count, remark in rows], right=(1,))


def states(status: DatasetStatus) -> str:
    """Return how many partitions are in each state."""
    counts = Counter(str(one.state) for one in status.partitions)
    return ", ".join(f"{count:,} {state}" for state, count in counts.most_common())


def _codes(lake: Lake, status: DatasetStatus) -> str:
    codes = rejected_codes(lake, status)
    shown = ", ".join(f"{count:,} {code}" for code, count in codes.most_common(_SHOWN_CODES))
    return f"{shown}, ..." if len(codes) > _SHOWN_CODES else shown


def rejected_codes(lake: Lake, status: DatasetStatus) -> Counter[str]:
    """Count the rejected rows of the current snapshot by error code."""
    codes: Counter[str] = Counter()
    for (_, code), rows in _rejections(lake, status).items():
        codes[code] += rows
    return codes


def _rejections(lake: Lake, status: DatasetStatus) -> Counter[tuple[str, str]]:
    """Count the rejected rows of the current snapshot by error class and code."""
    found: Counter[tuple[str, str]] = Counter()
    for one in status.partitions:
        if one.state in _WITHOUT_FILES or not one.rejected:
            continue
        table = lake.read(status.dataset, REJECTED, one.partition, _WHY)
        rows = zip(*(table.column(name).to_pylist() for name in _WHY), strict=True)
        found.update(
            (error_class, code) for outcome, error_class, code in rows if outcome == "error"
        )
    return found


def _money(summary: RunSummary) -> Text:
    now, total = summary.this_run, summary.in_total
    rows = [
        ("", "this run", "in total"),
        ("requests", f"{now.requests:,}", f"{total.requests:,}"),
        ("tokens", f"{now.tokens:,}", f"{total.tokens:,}"),
        ("paid", money(now.settled), money(total.settled)),
    ]
    if now.reserved or total.reserved:
        rows.append(("unknown, at most", money(now.reserved), money(total.reserved)))
    return aligned(rows, right=(1, 2))


def _remarks(target: Target, summary: RunSummary) -> list[str]:
    remarks = []
    stale = summary.status.in_state(PartitionState.STALE)
    if not (summary.requests or summary.failures or stale) and summary.status.results:
        remarks.append("0 requests, $0: every answer was paid before.")
    if summary.requests and summary.recorded is not None:
        run, recorded = summary.this_run, summary.recorded
        asked = None if target.pipeline.packing is None else recorded.asked
        text = compared(recorded.estimate, run.requests, run.settled, asked)
        remarks.append(f"{text[0].upper()}{text[1:]}.")
    if (free := summary.requests - summary.this_run.requests) > 0:
        remarks.append(f"{plural(free, 'more attempt')} brought no answer and cost nothing.")
    if unknown := summary.unsettled.unknown_requests:
        remarks.append(
            f"{plural(unknown, 'request')} of unknown outcome, at most "
            f"{money(summary.unsettled.unknown_money)}: "
            f"{target.command(f'ledger unknown {target.name}')}"
        )
    if stale:
        rows = sum(one.rows for one in summary.status.partitions if one.partition in set(stale))
        remarks.append(
            f"{plural(len(stale), 'stale partition')} left as it is ({plural(rows, 'row')}): the "
            f"question has changed since. Pay for new answers: "
            f"{target.command(f'run {target.called} --all')}"
        )
    return remarks


def _places(target: Target, summary: RunSummary) -> Text:
    rows = [
        ("time", seconds(summary.seconds)),
        ("results", str(target.lake.root / target.name / "results")),
        ("report", str(report_file(target.lake, target.name))),
        *(("export", one.shown(target.name)) for one in target.declared.dataset.export),
        ("Dagster UI", page_command(target)),
    ]
    return aligned(rows)


def page_command(target: Target) -> str:
    """Return the command that starts Dagster's page; outside of a project it shows runs only."""
    home = f"DAGSTER_HOME={shlex.quote(str(target.settings.dagster_home))}"
    root = find_project_root(target.declared.declared_in.parent)
    if root is None:
        webserver = program("dagster-webserver", "dagster_webserver")
        return f"{home} {webserver} --empty-workspace"
    there = "" if root == Path.cwd() else f"cd {shlex.quote(str(root))} && "
    return f"{there}{home} {program('dagster', 'dagster', root)} dev"


def next_commands(target: Target, status: DatasetStatus) -> list[str]:
    """Return the command lines that go on from here; they work when they are pasted."""
    run = target.command(f"run {target.called}")
    results = target.query("results", " limit 5")
    rejected = target.query("rejected_rows", " limit 5")
    if status.in_state(PartitionState.STALE):
        return [results, f"{run} --all"]
    if status.in_state(*_WITHOUT_FILES):
        return [target.command(f"plan {target.called}"), run]
    if waiting_again(status):
        return [rejected, f"{run} --failed"]
    if too_many_rejected(status) or not (status.results or status.skipped):
        return [
            rejected,
            retry_of_rejected(target, status) or target.command(f"plan {target.called}"),
        ]
    looks = [results, rejected] if status.rejected else [results]
    if target.declared.dataset.export:  # made by each run
        return looks
    return [*looks, target.command(f"export {target.called} --to {target.name}_results.csv")]


def retry_of_rejected(target: Target, status: DatasetStatus) -> str | None:
    """Return the command that asks again for rows of which there are too many; None: none does."""
    options = retry_options(_rejections(target.lake, status))
    return None if options is None else target.command(f"retry {target.called}{options}")


def waiting_again(status: DatasetStatus) -> list[str]:
    """Return the failed partitions with rows that another run asks.

    One that failed because too many rows are rejected has none: a run would change nothing.
    """
    failed = set(status.in_state(PartitionState.FAILED))
    return [one.partition for one in status.partitions if one.partition in failed and one.waiting]


def too_many_rejected(status: DatasetStatus) -> bool:
    """Return whether a partition failed because too many of its rows are rejected."""
    return any(one.too_many_rejected for one in status.partitions)
