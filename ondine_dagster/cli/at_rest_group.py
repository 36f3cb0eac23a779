"""The commands about texts on the disk: what they take and which function does the work."""

from __future__ import annotations

import click


@click.command()
@click.option("--older-than", "age", required=True, metavar="AGE", help="Such as 90d, 12h or 30m.")
@click.option("--dataset", metavar="NAME", help="Only those of this dataset.")
def purge(age: str, dataset: str | None) -> None:
    """Remove the texts of answers that came longer ago than AGE.

    What was asked, how it ended and what it cost is kept, and so are results. A row whose text is
    gone is not asked again, unless `run --pay-again` says so.
    """
    from ondine_dagster.cli.purge import purge_command

    purge_command(age, dataset)


@click.command()
@click.option("--lost", is_flag=True, help="The key of the ledger is lost: leave its texts.")
@click.option("--off", is_flag=True, help="Take the encryption off.")
def rekey(lost: bool, off: bool) -> None:
    """Encrypt all texts of prompts and answers under the key in ONDINE_ENCRYPTION_KEY.

    Those of the key in ONDINE_OLD_ENCRYPTION_KEY, and those that are not encrypted yet. Exit code 1
    if some cannot be read: they stay as they are.
    """
    from ondine_dagster.cli.rekey import rekey_command

    raise SystemExit(rekey_command(lost=lost, off=off))
