"""The commands of `ondine-dagster traces`: what they take and which function does the work."""

from __future__ import annotations

import click


@click.group()
def traces() -> None:
    """Send traces of requests to Langfuse or an OTLP host.

    Where they go is said by ONDINE_TRACES.
    """


@traces.command()
@click.option("--all", "everything", is_flag=True, help="Also what was sent or left out before.")
@click.option(
    "--since",
    metavar="AGE",
    help="Also what was sent or left out before, if it ended in the last 90m, 2h or 3d.",
)
def push(everything: bool, since: str | None) -> None:
    """Send the traces that wait.

    What is sent again has the same ids, so a host that knows them keeps one of each. Exit code 1:
    something still waits, or was refused.
    """
    if everything and since is not None:
        raise click.UsageError("--all and --since exclude one another.")
    from ondine_dagster.cli.traces import push_command

    raise SystemExit(push_command(everything=everything, since=since))


@traces.command()
def status() -> None:
    """Show how many traces wait, were sent, left out or refused."""
    from ondine_dagster.cli.traces import status_command

    status_command()
