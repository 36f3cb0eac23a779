"""`ondine-dagster export`: the results of a dataset as one file."""

from __future__ import annotations

from pathlib import Path

from ondine_dagster.cli.console import messages
from ondine_dagster.cli.target import find_target
from ondine_dagster.storage.export import export
from ondine_dagster.wording import plural


def export_command(called: str, to: Path, *, lineage: bool) -> None:
    """Write the file, and say what is in it and what is not."""
    target = find_target(called)
    written = export(target.lake, target.name, to.absolute(), lineage=lineage)
    console = messages()
    console.print(f"{plural(written.rows, 'row')} in {written.to}", markup=False)
    if written.rejected:
        look = target.query("rejected_rows")
        console.print(
            f"not in it: {plural(written.rejected, 'rejected row')}: {look}", markup=False
        )
    if written.missing:
        go_on = target.command(f"run {called}")
        console.print(
            f"not in it: {plural(written.missing, 'row')} without an outcome yet: {go_on}",
            markup=False,
        )
