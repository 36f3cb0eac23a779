"""The commands about texts on the disk: what they take and which function does the work."""

from __future__ import annotations

import click

from ondine_dagster.cli.usage import examples


@click.command(epilog=examples("purge --older-than 90d", "purge reviews --older-than 0m"))
@click.argument("dataset", required=False)
@click.option(
    "--older-than",
    "age",
    required=True,
    metavar="AGE",
    help="Only answers that came longer ago: 90m, 2h or 3d.",
)
def purge(dataset: str | None, age: str) -> None:
    """Remove the texts of old answers from the disk.

    Those of DATASET, or of all datasets. Hashes, outcomes, money and results are kept. A row whose
    text is gone is not asked again, unless `run --pay-again` says so.
    """
    from ondine_dagster.cli.purge import purge_command

    purge_command(dataset, age)


@click.command()
@click.option("--lost", is_flag=True, help="The old key is lost: leave its texts as they are.")
@click.option("--off", is_flag=True, help="Decrypt all texts instead.")
def rekey(lost: bool, off: bool) -> None:
    """Encrypt all texts on the disk under another key.

    The new key is read from ONDINE_ENCRYPTION_KEY, the old one, if any, from
    ONDINE_OLD_ENCRYPTION_KEY. Exit code 1: some texts could not be read, and stay as they are.
    """
    from ondine_dagster.cli.rekey import rekey_command

    raise SystemExit(rekey_command(lost=lost, off=off))
