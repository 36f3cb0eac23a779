"""The commands about what was asked before: what they take and which function does the work."""

from __future__ import annotations

import click

from ondine_dagster.cli.usage import examples, json_option


@click.command(epilog=examples("explain reviews.yaml r1"))
@click.argument("dataset")
@click.argument("row_key")
@json_option
def explain(dataset: str, row_key: str, as_json: bool) -> None:
    """Show every request for one row of DATASET, over all runs.

    What was sent and came back, what it cost, in which run, and where the row is now. Asks nobody.
    """
    from ondine_dagster.cli.explain import explain_command

    explain_command(dataset, row_key, as_json=as_json)


@click.command(epilog=examples("verify reviews.yaml", "verify reviews.yaml --rows 100 --seed 1"))
@click.argument("dataset")
@click.option(
    "--rows",
    default=20,
    show_default=True,
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="How many rows to ask, drawn at random.",
)
@click.option(
    "--max-drift",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="How many of them may differ.  [default: checks.max_drift]",
)
@click.option("--seed", metavar="TEXT", help="Draw the same rows as another call with this seed.")
def verify(dataset: str, rows: int, max_drift: float | None, seed: str | None) -> None:
    """Ask some answered rows of DATASET again, and compare.

    Costs money, and changes no table. Exit code 1: more rows differ than may, or none could be
    compared.
    """
    from ondine_dagster.cli.verify import verify_command

    raise SystemExit(verify_command(dataset, rows, max_drift, seed))
