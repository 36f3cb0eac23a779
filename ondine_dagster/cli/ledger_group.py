"""The commands of `ondine-dagster ledger`: what they take and which function does the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ondine_dagster.cli.usage import examples

if TYPE_CHECKING:
    from ondine_dagster.ledger.unknowns import Outcome


_EXAMPLES = examples(
    "ledger resolve 01a1fce082d993bb1046ddeb5d410a08 --free",
    "ledger resolve --older-than 2h --dataset reviews --charged",
    "ledger resolve --by-provider",
)


@click.group()
def ledger() -> None:
    """Audit paid requests; settle those of unknown outcome."""


@ledger.command()
def check() -> None:
    """Add all requests up again and compare with the counters.

    Exit code 1: they differ.
    """
    from ondine_dagster.cli.ledger import check_command

    raise SystemExit(check_command())


@ledger.command(epilog=examples("ledger unknown", "ledger unknown reviews"))
@click.argument("dataset", required=False)
def unknown(dataset: str | None) -> None:
    """List requests of unknown outcome: they may have been billed.

    Those of DATASET, or of all datasets.
    """
    from ondine_dagster.cli.ledger import unknown_command

    unknown_command(dataset)


@ledger.command(epilog=_EXAMPLES)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option(
    "--older-than",
    metavar="AGE",
    help="All that were sent longer ago: 90m, 2h or 3d. Not with ids.",
)
@click.option("--dataset", metavar="DATASET", help="Only those of this dataset. Not with ids.")
@click.option("--by-provider", is_flag=True, help="Ask OpenRouter what became of them.")
@click.option("--free", is_flag=True, help="They were not billed.")
@click.option("--charged", is_flag=True, help="They were billed: count them at their worst case.")
def resolve(
    ids: tuple[str, ...],
    older_than: str | None,
    dataset: str | None,
    by_provider: bool,
    free: bool,
    charged: bool,
) -> None:
    """Say whether requests of unknown outcome were billed.

    Their rows may be asked again then.
    """
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
