"""`ondine-dagster metrics` as it is typed; nothing heavy is imported before it runs."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve them at /metrics on this port; 0 takes a free one.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Listen on this address."
)
def metrics(port: int | None, host: str) -> None:
    """Print or serve numbers for Prometheus.

    Requests, tokens and money of all runs, and what the last run of each dataset did.
    """
    from ondine_dagster.cli.metrics import metrics_command

    metrics_command(port, host)
