"""`ondine-dagster purge`: removes the texts of old answers, and says what is left."""

from __future__ import annotations

from pathlib import Path

import click

from ondine_dagster.assets.rows.purged_files import purge_files
from ondine_dagster.assets.rows.unused_attachments import Unused, remove_unused
from ondine_dagster.cli.ages import milliseconds
from ondine_dagster.cli.scope import existing_ledger, refuse_stranger, scope
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.purge import purge
from ondine_dagster.settings import load_settings
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural


def purge_command(called: str | None, age: str) -> None:
    """Remove the texts; raises OndineError for an age or a dataset that there is not."""
    before_ms = now_ms() - milliseconds(age, "--older-than")
    dataset, folder = scope(called)
    settings = load_settings(folder)
    path = settings.ledger_path
    with existing_ledger(path) as ledger:
        with ledger.database.read() as connection:
            refuse_stranger(connection, dataset, called)
        done = purge(ledger.database, before_ms, dataset)
        if dataset is not None and done.answers and ledger.is_alone():
            # its rows lay among others, which SQLite has moved: their old places hold copies
            done.in_wal = not ledger.database.rewrite()
    lake = Lake(settings.lake_root)
    rows = purge_files(lake, before_ms, dataset)
    if dataset is None:
        store = AttachmentStore(settings.data_dir / "attachments")
        _tell_of_files(remove_unused(lake, store, before_ms, now_ms()))
    if done.in_wal:
        tell_of_wal(path)
    if not done.answers and not rows:
        click.echo(f"No answer with a text is older than {age}.")
        return
    click.echo(
        f"Removed the texts of {plural(done.answers, 'answer')} ({done.bytes:,} bytes) from the "
        f"ledger and of {plural(rows, 'row')} from the lake, that came more than {age} ago. Their "
        "rows are not asked again; what they cost stays counted."
    )


def tell_of_wal(ledger: Path) -> None:
    """Say that removed texts can still be found, and how they go."""
    click.echo(
        f"Another program reads the ledger, so the texts as they were are still in {ledger}-wal: "
        "close it, and run this command again.",
        err=True,
    )


def _tell_of_files(unused: Unused) -> None:
    if unused.files:
        click.echo(
            f"Removed {plural(unused.files, 'file')} from attachments/ that no prompt names any "
            "more."
        )
    if unused.problem:
        click.echo(f"attachments/ is left as it is. {unused.problem}", err=True)
