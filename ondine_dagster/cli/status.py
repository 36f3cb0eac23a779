"""`ondine-dagster status`: where partitions and budgets of a dataset stand, and its money."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from ondine_dagster.assets.monitoring.slow_code import slow_code
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState, dataset_status
from ondine_dagster.cli.budgets import budgets_table, standings_of
from ondine_dagster.cli.console import aligned, output
from ondine_dagster.cli.summary import rows_by_outcome, show_next
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.ledger.database import reader_engine
from ondine_dagster.ledger.totals import Spent, Unsettled, spent, unsettled
from ondine_dagster.llm.prices import money
from ondine_dagster.wording import plural

_SHOWN_PARTITIONS = 100
_STYLES = {
    PartitionState.DONE: "green",
    PartitionState.FAILED: "red",
    PartitionState.STALE: "yellow",
    PartitionState.UNPARSED: "yellow",
}


def status_command(called: str) -> None:
    """Print partitions, rows by outcome, money by state, budgets, and what to do next."""
    target = find_target(called)
    status = dataset_status(target.pipeline, target.lake)
    console = output()
    console.print(_partitions(status))
    for one in status.partitions[:_SHOWN_PARTITIONS]:
        if one.too_many_rejected:
            console.print(Text(f"{one.partition}: {one.too_many_rejected}", style="red"))
    if (more := len(status.partitions) - _SHOWN_PARTITIONS) > 0:
        console.print(Text(f"... and {plural(more, 'partition')} that are done", style="dim"))
    for told in slow_code(target.settings.data_dir, target.name):
        console.print(Text(told, style="yellow"))
    console.print()
    console.print(rows_by_outcome(target.lake, status))
    console.print()
    console.print(_money(*_spent(target)))
    if budgets := standings_of(target):
        console.print()
        console.print(budgets_table(budgets))
    show_next(console, target, status)


def _partitions(status: DatasetStatus) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("partition", no_wrap=True)
    table.add_column("state", no_wrap=True)
    names = ("rows", "results", *(["skipped"] if status.skipped else []), "rejected", "waiting")
    for name in names:
        table.add_column(name, justify="right", min_width=len(name))
    # what needs something comes first where not all can be shown
    by_need = sorted(status.partitions, key=lambda one: one.state is PartitionState.DONE)
    shown = {one.partition for one in by_need[:_SHOWN_PARTITIONS]}
    for one in status.partitions:
        if one.partition in shown:
            rejected = one.rejected and one.rejected - one.waiting
            skipped = [one.skipped] if status.skipped else []
            counts = (one.rows, one.results, *skipped, rejected, one.waiting)
            state = Text(str(one.state), style=_STYLES.get(one.state, ""))
            table.add_row(one.partition, state, *(f"{count:,}" for count in counts))
    return table


def _spent(target: Target) -> tuple[Spent, Unsettled]:
    path = target.settings.ledger_path
    if not path.exists():
        return Spent(), Unsettled()
    with reader_engine(path).connect() as connection:
        return spent(connection, target.name), unsettled(connection, target.name)


def _money(total: Spent, unsettled: Unsettled) -> Text:
    settled = total.requests - unsettled.open_requests - unsettled.unknown_requests
    rows = (
        ("paid", total.settled, settled),
        ("open, at most", unsettled.open_money, unsettled.open_requests),
        ("unknown, at most", unsettled.unknown_money, unsettled.unknown_requests),
    )
    lines = [(name, money(amount), plural(requests, "request")) for name, amount, requests in rows]
    return aligned(lines, right=(1, 2))
