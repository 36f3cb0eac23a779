"""The commands of `ondine-dagster`: what they take and which function does the work.

Nothing heavy is imported here, so that `--help` answers at once; each command imports its module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ondine_dagster.cli.at_rest_group import purge, rekey
from ondine_dagster.cli.ledger_group import ledger
from ondine_dagster.cli.metrics_entry import metrics
from ondine_dagster.cli.records import explain, verify
from ondine_dagster.cli.simulate_entry import simulate
from ondine_dagster.cli.traces_group import traces
from ondine_dagster.cli.usage import (
    EXIT_CODES,
    examples,
    json_option,
    partition_option,
    write_sections,
)

_SIGINT_EXIT_CODE = 130  # as shells have it
_SECTIONS = {
    "Before a run": ("doctor", "models", "preview", "plan"),
    "Run": ("run", "retry", "verify"),
    "After a run": ("status", "explain", "sql", "export"),
    "Ledger, and texts on the disk": ("ledger", "purge", "rekey"),
    "Monitoring": ("metrics", "traces"),
    "Set up": ("dagster-yaml", "import", "simulate"),
}


class _Commands(click.Group):
    """Turns mistakes that a person can fix into one message and exit code 1, Ctrl-C into 130."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by purpose, in the order in which they are needed."""
        write_sections(ctx, formatter, self, _SECTIONS)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nInterrupted.", err=True)
            raise SystemExit(_SIGINT_EXIT_CODE) from None
        except Exception as error:
            from ondine_dagster.cli.console import visible
            from ondine_dagster.errors import for_a_person

            told = for_a_person(error)
            if told is None:
                raise
            text = told if ctx.obj is None else ctx.obj.pasteable(told)
            raise click.ClickException(visible(text)) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
)
@click.version_option(package_name="ondine_dagster")
def cli() -> None:
    """Label tables with an LLM through Dagster, and never pay for an answer twice."""


@cli.command(
    epilog=examples(
        "run reviews.yaml",
        "run product_reviews --failed",
        "run reviews.yaml --partition rows-00000 --partition rows-00003",
    )
)
@click.argument("dataset")
@partition_option("Run")
@click.option("--missing", is_flag=True, help="Run what is missing, changed or failed (default).")
@click.option("--failed", is_flag=True, help="Run only what failed.")
@click.option("--all", "everything", is_flag=True, help="Run everything, stale partitions too.")
@click.option("--upstream", is_flag=True, help="First run the datasets whose results it reads.")
@click.option(
    "--pay-again", is_flag=True, help="Ask, and pay, again where the text of an answer is gone."
)
@click.option("--replay", is_flag=True, help="Ask nobody: make all tables again from the ledger.")
def run(
    dataset: str,
    partitions: tuple[str, ...],
    missing: bool,
    failed: bool,
    everything: bool,
    upstream: bool,
    pay_again: bool,
    replay: bool,
) -> None:
    """Label the rows of DATASET.

    Takes the snapshot, runs the partitions and writes the report, in this process. Answers that
    were paid before are not paid again. Exit code 0: every row has an outcome, and no partition
    failed. 130 or 143: interrupted; what was answered is kept.
    """
    if sum((bool(partitions), missing, failed, everything)) > 1:
        raise click.UsageError("--partition, --missing, --failed and --all exclude one another.")
    if replay:
        if missing or failed or everything or upstream or pay_again:
            raise click.UsageError("--replay takes --partition only.")
        from ondine_dagster.cli.replay import replay_command

        raise SystemExit(replay_command(dataset, partitions))
    from ondine_dagster.assets.rows.paying_again import PAY_AGAIN_TAG
    from ondine_dagster.cli.choice import Choice, Mode
    from ondine_dagster.cli.run import run_command
    from ondine_dagster.cli.target import upstream_of

    mode: Mode = "failed" if failed else "all" if everything else "missing"
    for earlier in upstream_of(dataset) if upstream else ():
        if code := run_command(earlier, Choice()):
            raise SystemExit(code)
    tags = {PAY_AGAIN_TAG: "true"} if pay_again else {}
    raise SystemExit(run_command(dataset, Choice(mode, partitions), tags=tags))


@cli.command(epilog=examples("plan reviews.yaml", "plan product_reviews --all"))
@click.argument("dataset")
@partition_option("Plan")
@click.option("--all", "everything", is_flag=True, help="Plan what `run --all` would do.")
def plan(dataset: str, partitions: tuple[str, ...], everything: bool) -> None:
    """Say what a run of DATASET would do and cost.

    Which rows are new, paid or stale, and why; tokens, money and time; and which budget would stop
    it. Reads the source as it is now. Asks nobody and changes nothing.
    """
    if partitions and everything:
        raise click.UsageError("--partition and --all exclude one another.")
    from ondine_dagster.cli.choice import Choice
    from ondine_dagster.cli.plan import plan_command

    plan_command(dataset, Choice("all" if everything else "missing", partitions))


@cli.command(epilog=examples("preview reviews.yaml", "preview reviews.yaml --rows 1 --json"))
@click.argument("dataset")
@partition_option("Show rows of")
@click.option(
    "--rows",
    default=3,
    show_default=True,
    type=click.IntRange(1, 1000),
    metavar="N",
    help="How many rows to show.",
)
@json_option
def preview(dataset: str, partitions: tuple[str, ...], rows: int, as_json: bool) -> None:
    """Show the prompts of the first rows of DATASET.

    With the tokens of each part, and which rows have no prompt and why. Reads the source as it is
    now. Asks nobody and changes nothing.
    """
    from ondine_dagster.cli.preview import preview_command

    preview_command(dataset, rows, partitions, as_json=as_json)


@cli.command(epilog=examples("retry reviews.yaml", "retry reviews.yaml --class refused"))
@click.argument("dataset")
@partition_option("Ask rows of")
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="CLASS",
    help="Ask only rows of this error class or code, such as capacity or refused. Repeatable.  "
    "[default: transient, capacity, row_retryable]",
)
def retry(dataset: str, partitions: tuple[str, ...], classes: tuple[str, ...]) -> None:
    """Ask again for rejected rows of DATASET.

    Costs money, and says first how much at most. Where `llm.fallback` is declared, that model is
    asked. Exit code 0: all chosen rows were asked, and no partition that was run is red.
    """
    from ondine_dagster.cli.retry import retry_command

    raise SystemExit(retry_command(dataset, classes, partitions))


@cli.command(epilog=examples("status reviews.yaml"))
@click.argument("dataset")
def status(dataset: str) -> None:
    """Show the partitions, rows, money and budgets of DATASET."""
    from ondine_dagster.cli.status import status_command

    status_command(dataset)


@cli.command(
    epilog=examples(
        'sql "show all tables"',
        'sql "select * from product_reviews.results limit 5"',
        'sql "select * from product_reviews.rejected_rows" > rejected.csv',
        dataset=False,
    )
)
@click.argument("query", required=False)
@click.option("--views", is_flag=True, help="Print SQL that makes the same views in any DuckDB.")
def sql(query: str | None, views: bool) -> None:
    """Query lake and ledger with SQL, read-only.

    Each asset is a table, such as product_reviews.results. The ledger has ledger.attempts,
    ledger.asks, ledger.answers and ledger.spend. Draws a table on a terminal, writes CSV elsewhere.
    """
    if (query is None) is not views:
        raise click.UsageError('Give either a query, as in sql "select 1", or --views.')
    from ondine_dagster.cli.sql import sql_command, views_command

    if query is None:
        views_command()
    else:
        sql_command(query)


@cli.command(
    epilog=examples(
        "export reviews.yaml --to reviews_results.csv",
        "export reviews.yaml --to duckdb:///labels.duckdb --table reviews --mode update",
    )
)
@click.argument("dataset")
@click.option(
    "--to",
    metavar="FILE|URL",
    help="A .csv, .parquet, .jsonl, .xlsx or .duckdb file, replaced if it exists; or a database: "
    "duckdb:///labels.duckdb or postgresql://...",
)
@click.option(
    "--to-variable", metavar="NAME", help="Instead of --to: the environment variable with the URL."
)
@click.option("--table", metavar="NAME", help="The table of the database.  [default: the dataset]")
@click.option(
    "--mode",
    type=click.Choice(("replace", "append", "update")),
    metavar="MODE",
    help="replace: the table holds these results only (default). append: rows that it does not "
    "have are added. update: rows that it has get new values as well.",
)
@click.option("--lineage", is_flag=True, help="Add the columns that say where an answer is from.")
def export(dataset: str, **options: Any) -> None:
    """Write the results of DATASET to a file or a table.

    In the order of the input. Without --to, where the declaration says under `export`.
    """
    from ondine_dagster.cli.export import export_command

    export_command(dataset, {name: value for name, value in options.items() if value})


@cli.command(
    "import",
    epilog=examples("import ondine.yaml --out defs/reviews/defs.yaml", dataset=False),
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the declaration to this file, which must not exist yet.",
)
@click.option("--name", metavar="NAME", help="The name of the dataset.  [default: from the file]")
def import_ondine(config: Path, out: Path | None, name: str | None) -> None:
    """Turn a configuration of Ondine into a declaration.

    CONFIG is a YAML or JSON file. Says of each line that could not be carried over why, and what to
    do about it. Runs nothing.
    """
    from ondine_dagster.cli.importing import import_command

    import_command(config, out, name)


@cli.command(epilog=examples("models", "models --provider groq --json", dataset=False))
@click.option("--provider", metavar="NAME", help="List all known models of this provider instead.")
@json_option
def models(provider: str | None, as_json: bool) -> None:
    """List the presets with their models, prices and keys.

    `llm: NAME` takes a preset as it is, `llm: {preset: NAME, temperature: 0}` changes some of its
    settings; `llm: PROVIDER/MODEL` is any other model. Asks nobody.
    """
    from ondine_dagster.cli.models import models_command

    models_command(provider, as_json=as_json)


@cli.command(epilog=examples("doctor", "doctor reviews.yaml"))
@click.argument("dataset", required=False)
def doctor(dataset: str | None) -> None:
    """Check that everything is in place; costs nothing.

    Versions, folders, ledger and Dagster; for DATASET also its source, prompt, model, key and
    budgets. Where there is a key, or the server is on this machine, the provider is asked whether
    the key is good and the model is there. No model is asked anything. Exit code 1: something
    FAILs.
    """
    from ondine_dagster.cli.doctor import doctor_command

    raise SystemExit(doctor_command(dataset))


@cli.command("dagster-yaml")
@click.argument("place", type=click.Choice(("laptop", "server")), metavar="laptop|server")
def dagster_yaml(place: str) -> None:
    """Print a dagster.yaml for a laptop or a server.

    Put it into DAGSTER_HOME: it sets run queue, retries and monitoring.
    """
    from ondine_dagster.cli.dagster_yaml import dagster_yaml_command

    raise SystemExit(dagster_yaml_command(place))


for _command in (explain, ledger, metrics, purge, rekey, simulate, traces, verify):
    cli.add_command(_command)


def main() -> None:
    """Run the command line of this process."""
    cli(prog_name="ondine-dagster")


if __name__ == "__main__":
    main()
