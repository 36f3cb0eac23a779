"""`ondine-dagster rekey`: brings texts of ledger and lake over to another key."""

from __future__ import annotations

from pathlib import Path

import click

from ondine_dagster.cli.purge import tell_of_wal
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.key_secret import key_secret
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.rekey import rekey
from ondine_dagster.settings import load_settings
from ondine_dagster.storage.keyed_files import key_files
from ondine_dagster.storage.rekeyed_files import RekeyedFiles, rekey_files
from ondine_dagster.wording import plural


def rekey_command(*, lost: bool, off: bool) -> int:
    """Rekey ledger and lake; return the exit code. Raises OndineError as `rekey` does."""
    settings = load_settings(Path.cwd())
    path = settings.ledger_path
    if not path.exists():
        raise OndineError(f"There is no ledger at {path} yet: nothing was run with this data.")
    ledger, keyed, files = Ledger(path, any_key=True), 0, RekeyedFiles()

    def bring_lake_over() -> None:
        nonlocal keyed, files
        with ledger.database.read() as connection:
            secret = key_secret(connection)
        keyed = 0 if secret is None else key_files(settings.lake_root, secret)
        files = rekey_files(settings.lake_root)

    try:
        done = rekey(ledger, lost=lost, off=off, beside=bring_lake_over)
        name = ledger.database.sealing.namespace
    finally:
        ledger.close()
    now = f"encrypted under key {name.hex()}" if name else "not encrypted any more"
    click.echo(f"{plural(done.texts, 'text')} brought over: {path} is {now}.")
    if keyed:
        click.echo(
            f"Answer keys of the ledger and of {plural(keyed, 'file')} of the lake are made under "
            "the ledger's own secret from now on."
        )
    if files.files:
        click.echo(f"{plural(files.files, 'file')} of the lake brought over.")
    if files.problems:
        left = plural(len(files.problems), "file")
        click.echo(f"{left} of the lake left as before. {files.problems[0]}", err=True)
    for other, count in done.other.items():
        click.echo(
            f"{plural(count, 'text')} under another key ({other}) stay unreadable, and their rows "
            "are not asked again. With that key in ONDINE_OLD_ENCRYPTION_KEY, rekey once more.",
            err=True,
        )
    if done.damaged:
        click.echo(
            f"{plural(done.damaged, 'text')} were changed since they were written and cannot be "
            "read. Restore the ledger from a backup.",
            err=True,
        )
    if done.in_wal:
        tell_of_wal(path)
    return 1 if done.other or done.damaged or files.problems else 0
