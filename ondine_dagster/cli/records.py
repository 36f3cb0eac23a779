"""The commands about what was asked before: what they take and which function does the work."""

from __future__ import annotations

import click

DATASET_HELP = """DATASET is the name of a dataset of this project, or the path of a YAML file
(FILE#NAME where the file declares several)."""


@click.command(epilog=DATASET_HELP)
@click.argument("dataset")
@click.argument("row_key")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def explain(dataset: str, row_key: str, as_json: bool) -> None:
    """Tell the story of one row of DATASET: every request for it, over all runs.

    What was sent and came back, what it cost, in which run, and where the row is now. Asks nobody.
    """
    from ondine_dagster.cli.explain import explain_command

    explain_command(dataset, row_key, as_json=as_json)


@click.command(epilog=DATASET_HELP)
@click.argument("dataset")
@click.option("--rows", default=20, show_default=True, type=click.IntRange(1, 100_000))
@click.option(
    "--max-drift",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="So many of the rows may differ.  [default: that of checks.max_drift]",
)
@click.option("--seed", metavar="TEXT", help="Draws the same rows as the same seed before.")
def verify(dataset: str, rows: int, max_drift: float | None, seed: str | None) -> None:
    """Ask so many answered rows of DATASET again, and compare. Costs money, changes no table.

    Exit code 0: no more rows differ than may. 1: more do, or none could be compared.
    """
    from ondine_dagster.cli.verify import verify_command

    raise SystemExit(verify_command(dataset, rows, max_drift, seed))
