"""The commands of `ondine-dagster`: what they take and which function does the work.

Nothing heavy is imported here, so that `--help` answers at once; each command imports its module.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import click

from ondine_dagster.cli.at_rest_group import purge, rekey
from ondine_dagster.cli.ledger_group import ledger
from ondine_dagster.cli.metrics_entry import metrics
from ondine_dagster.cli.records import DATASET_HELP as _DATASET_HELP
from ondine_dagster.cli.records import explain, verify

# a full disk, a folder that may not be written to: no bug of ours
_FOR_A_PERSON = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


class _Commands(click.Group):
    """Turns mistakes that a person can fix into one message and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from ondine_dagster.errors import OndineError

            if isinstance(error, OndineError):
                text = str(error) if ctx.obj is None else ctx.obj.pasteable(str(error))
                raise click.ClickException(text) from None
            if isinstance(error, OSError) and error.errno in _FOR_A_PERSON:
                where = f"{error.filename}: " if error.filename else ""
                raise click.ClickException(f"{where}{error.strerror}.") from None
            raise


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="ondine_dagster")
def cli() -> None:
    """Label tables with an LLM through Dagster, and never pay for an answer twice."""


@cli.command(epilog=_DATASET_HELP)
@click.argument("dataset")
@click.option(
    "--partition", "partitions", multiple=True, metavar="KEY", help="Run these; may be repeated."
)
@click.option("--missing", is_flag=True, help="Run what is missing, changed or failed (default).")
@click.option("--failed", is_flag=True, help="Run only what failed.")
@click.option("--all", "everything", is_flag=True, help="Run all, also what a new prompt made old.")
@click.option("--upstream", is_flag=True, help="Run the datasets whose results it reads first.")
@click.option(
    "--pay-again", is_flag=True, help="Ask, and pay, again where the text of an answer is gone."
)
@click.option("--replay", is_flag=True, help="Ask nobody: make all again from what is recorded.")
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
    """Label the rows of DATASET in this process: snapshot, partitions, report.

    Answers that were paid before are not paid again. Exit code 0: every row has an outcome and no
    partition failed. 130 or 143: interrupted; what was answered is kept.
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


@cli.command(epilog=_DATASET_HELP)
@click.argument("dataset")
@click.option(
    "--partition", "partitions", multiple=True, metavar="KEY", help="Plan these; may be repeated."
)
@click.option("--all", "everything", is_flag=True, help="Plan what `run --all` would do.")
def plan(dataset: str, partitions: tuple[str, ...], everything: bool) -> None:
    """Say what a run of DATASET would do and cost, with the source as it is now.

    Rows that are new, paid or stale and why; tokens, money and time; and which budget would stop
    it. Asks nobody and changes nothing.
    """
    if partitions and everything:
        raise click.UsageError("--partition and --all exclude one another.")
    from ondine_dagster.cli.choice import Choice
    from ondine_dagster.cli.plan import plan_command

    plan_command(dataset, Choice("all" if everything else "missing", partitions))


@cli.command(epilog=_DATASET_HELP)
@click.argument("dataset")
@click.option(
    "--rows", default=3, show_default=True, type=click.IntRange(1, 1000), help="Show so many."
)
@click.option(
    "--partition", "partitions", multiple=True, metavar="KEY", help="Of these; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def preview(dataset: str, rows: int, partitions: tuple[str, ...], as_json: bool) -> None:
    """Show the prompts of the first rows of DATASET, with the source as it is now.

    With their tokens by part, and which rows have no prompt and why. Asks nobody and changes
    nothing.
    """
    from ondine_dagster.cli.preview import preview_command

    preview_command(dataset, rows, partitions, as_json=as_json)


@cli.command(epilog=_DATASET_HELP)
@click.argument("dataset")
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="CLASS",
    help="Ask only these error classes or codes, such as capacity or refused; may be repeated.",
)
@click.option(
    "--partition", "partitions", multiple=True, metavar="KEY", help="In these; may be repeated."
)
def retry(dataset: str, classes: tuple[str, ...], partitions: tuple[str, ...]) -> None:
    """Ask again for rejected rows of DATASET whose error class may succeed.

    Without --class: transient, capacity, row_retryable. Costs money: how much at most is said
    first. Where `llm.fallback` is declared, that model is asked. Exit code 0: all chosen rows were
    asked, and no partition that was run is red.
    """
    from ondine_dagster.cli.retry import retry_command

    raise SystemExit(retry_command(dataset, classes, partitions))


@cli.command(epilog=_DATASET_HELP)
@click.argument("dataset")
def status(dataset: str) -> None:
    """Show the partitions of DATASET, its rows by outcome and its money by state."""
    from ondine_dagster.cli.status import status_command

    status_command(dataset)


for _command in (explain, verify):
    cli.add_command(_command)


@cli.command()
@click.argument("query", required=False)
@click.option("--views", is_flag=True, help="Print SQL that makes the same tables in any DuckDB.")
def sql(query: str | None, views: bool) -> None:
    """Ask DuckDB about lake and ledger, read-only.

    Each asset is a table: product_reviews.results. The ledger: ledger.attempts, ledger.asks,
    ledger.answers, ledger.spend. A drawn table on a terminal, CSV with a header elsewhere.
    """
    if (query is None) is not views:
        raise click.UsageError('Give either a query, as in sql "select 1", or --views.')
    from ondine_dagster.cli.sql import sql_command, views_command

    if query is None:
        views_command()
    else:
        sql_command(query)


@cli.command(epilog=_DATASET_HELP)
@click.argument("dataset")
@click.option(
    "--to",
    metavar="FILE|URL",
    help="A file that ends in .csv, .parquet, .jsonl, .xlsx or .duckdb, replaced if it exists; or "
    "a database: duckdb:///labels.duckdb or postgresql://...",
)
@click.option(
    "--to-variable", metavar="NAME", help="The environment variable with the URL, if not --to."
)
@click.option("--table", metavar="NAME", help="The table of the database.  [default: the dataset]")
@click.option(
    "--mode",
    type=click.Choice(("replace", "append", "update")),
    help="What becomes of the rows of a table: it holds the results only (default), gets those "
    "that it does not have, or also new values for those that it has.",
)
@click.option("--lineage", is_flag=True, help="Add the columns that say where an answer is from.")
def export(dataset: str, **options: Any) -> None:
    """Write the results of DATASET to a file or a table, in the order of the input.

    Without --to: to where the declaration says under `export`.
    """
    from ondine_dagster.cli.export import export_command

    export_command(dataset, {name: value for name, value in options.items() if value})


@cli.command("import")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write the declaration there, such as defs/reviews/defs.yaml; never over a file.",
)
@click.option("--name", metavar="NAME", help="What the dataset is called.  [default: by the file]")
def import_ondine(config: Path, out: Path | None, name: str | None) -> None:
    """Turn CONFIG, a configuration of Ondine (YAML or JSON), into a declaration.

    Says of each line that could not be carried over why, and what to do. Runs nothing.
    """
    from ondine_dagster.cli.importing import import_command

    import_command(config, out, name)


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one.  [default: 8765]")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--shape", default="openai", show_default=True, help="The provider whose protocol it speaks."
)
@click.option(
    "--model",
    default="demo-model",
    show_default=True,
    help="The model that it lists, which `doctor` looks for; it answers under any name.",
)
@click.option("--latency-ms", type=click.FloatRange(0), default=0.0, help="Before each reply.")
@click.option("--jitter-ms", type=click.FloatRange(0), default=0.0, help="At most this on top.")
@click.option("--seed", default=0, help="Decides jitter, and which requests fail.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT:SHARE",
    help='Let a share of the requests fail: "429 retry_after=1: 5%" or "stall: 0.01". Repeatable.',
)
@click.option(
    "--burst",
    "bursts",
    multiple=True,
    metavar="FAULT:SHARE",
    help='Faults of hard times that come back: "429: 80%". Repeatable.',
)
@click.option(
    "--burst-every", type=float, default=30.0, help="Seconds from one to the next.  [default: 30]"
)
@click.option("--burst-for", type=float, default=5.0, help="Seconds that each lasts.  [default: 5]")
@click.option("--list-faults", is_flag=True, help="List the faults of the provider, and end.")
@click.option("--input-price", default="0.15", show_default=True, help="USD per million tokens.")
@click.option("--output-price", default="0.60", show_default=True, help="USD per million tokens.")
@click.option("--rpm", type=click.IntRange(1), help="Requests per minute; more get a 429.")
@click.option("--tpm", type=click.IntRange(1), help="Tokens per minute; more get a 429.")
@click.option("--rpd", type=click.IntRange(1), help="Requests per day (UTC); more get a 429.")
@click.option("--capacity", type=click.IntRange(1), help="Requests at once; more get a 429.")
@click.option(
    "--rate-headers",
    type=click.Choice(("openai", "groq", "anthropic", "openrouter")),
    help="Tell of the limits as this provider does.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="KEY:FAULT",
    help='Refuse one key: "key-1: 401", or "key-2: 402 after=100" once it was used. Repeatable.',
)
@click.option("--tokens-per-byte", is_flag=True, help="Count each byte as a token, not each four.")
@click.option("--reasoning-tokens", type=click.IntRange(0), default=0, help="Hidden, but billed.")
@click.option("--credit-usd", help="What each key may spend; then it gets a 402.")
@click.option("--ignore-ceiling", is_flag=True, help="Answer and bill past max_tokens.")
def simulate(**options: Any) -> None:
    """Start a provider on this machine: it answers, fails on demand and keeps a bill.

    The bill is at /bill; a POST to /outage takes it down until a POST to /recover.
    """
    from ondine_dagster.cli.simulate import simulate_command

    simulate_command(**options)


@cli.command()
@click.option("--provider", metavar="NAME", help="All models that are known of this provider.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def models(provider: str | None, as_json: bool) -> None:
    """List the presets: model, context window, how fields are asked for, prices, and the key.

    `llm: NAME` takes a preset as it is, `llm: {preset: NAME, temperature: 0}` with settings over
    it; `llm: PROVIDER/MODEL` is any other model. Asks nobody.
    """
    from ondine_dagster.cli.models import models_command

    models_command(provider, as_json=as_json)


@cli.command(epilog=_DATASET_HELP)
@click.argument("dataset", required=False)
def doctor(dataset: str | None) -> None:
    """Check versions, folders, ledger, and for DATASET source, model, key and provider.

    Where there is a key, or the server is on this machine, the provider is asked whether the key is
    good and the model is there. No model is asked anything.
    """
    from ondine_dagster.cli.doctor import doctor_command

    raise SystemExit(doctor_command(dataset))


@cli.command("dagster-yaml")
@click.argument("place", type=click.Choice(("laptop", "server")))
def dagster_yaml(place: str) -> None:
    """Print a dagster.yaml (queue, retries, monitoring) to put into DAGSTER_HOME."""
    from ondine_dagster.cli.dagster_yaml import dagster_yaml_command

    raise SystemExit(dagster_yaml_command(place))


@cli.group()
def traces() -> None:
    """Send traces of requests to Langfuse or another host, where ONDINE_TRACES is set."""


@traces.command("push")
@click.option("--all", "everything", is_flag=True, help="Also what was sent or left out before.")
@click.option("--since", metavar="AGE", help="The same for what ended in the last 90m, 2h or 3d.")
def push_traces(everything: bool, since: str | None) -> None:
    """Send what waits. Exit code 1 if something still waits, or was refused.

    What is sent again has the same ids, so that a host that knows them keeps one of each.
    """
    if everything and since is not None:
        raise click.UsageError("--all and --since exclude one another.")
    from ondine_dagster.cli.traces import push_command

    raise SystemExit(push_command(everything=everything, since=since))


@traces.command("status")
def traces_status() -> None:
    """Show how many requests wait, were sent, left out or refused."""
    from ondine_dagster.cli.traces import status_command

    status_command()


cli.add_command(ledger)
cli.add_command(metrics)
cli.add_command(purge)
cli.add_command(rekey)


def main() -> None:
    """Run the command line of this process."""
    cli(prog_name="ondine-dagster")


if __name__ == "__main__":
    main()
