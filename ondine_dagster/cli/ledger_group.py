"""The commands of `ondine-dagster ledger`: what they take and which function does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ondine_dagster.ledger.unknowns import Outcome


@click.group()
def ledger() -> None:
    """Audit the record of paid requests, and settle those of unknown outcome."""


@ledger.command()
def check() -> None:
    """Add all requests up again and compare with the counters. Exit code 1 if they differ."""
    from ondine_dagster.cli.ledger import check_command

    raise SystemExit(check_command())


@ledger.command()
@click.argument("dataset", required=False)
def unknown(dataset: str | None) -> None:
    """List the requests that may have been billed, of DATASET or of all datasets."""
    from ondine_dagster.cli.ledger import unknown_command

    unknown_command(dataset)


@ledger.command()
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--older-than", metavar="AGE", help="All that were sent before: 90m, 2h or 3d ago.")
@click.option(
    "--dataset",
    metavar="DATASET",
    help="Not with ids: only those of DATASET.",
)
@click.option("--by-provider", is_flag=True, help="Ask OpenRouter what became of them.")
@click.option("--free", is_flag=True, help="The provider did not bill them.")
@click.option("--charged", is_flag=True, help="It did: count them at the most they can cost.")
def resolve(
    ids: tuple[str, ...],
    older_than: str | None,
    dataset: str | None,
    by_provider: bool,
    free: bool,
    charged: bool,
) -> None:
    """Say what became of requests of unknown outcome; their rows may be asked again."""
    from ondine_dagster.cli import ledger as commands

    if by_provider:
        if free or charged or ids or older_than is not None:
            raise click.UsageError("--by-provider asks for all requests, and takes --dataset only.")
        commands.resolve_by_provider_command(dataset)
        return
    if free is charged:
        raise click.UsageError("Say what became of them: either --free or --charged.")
    if bool(ids) is (older_than is not None):
        raise click.UsageError("Say which requests: either their ids, or --older-than.")
    if dataset is not None and older_than is None:
        raise click.UsageError("--dataset goes with --older-than: an id is of one dataset anyway.")
    outcome: Outcome = "free" if free else "charged"
    if older_than is None:
        commands.resolve_command(ids, outcome)
    else:
        commands.resolve_older_command(older_than, dataset, outcome)
