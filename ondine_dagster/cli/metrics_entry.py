"""`ondine-dagster metrics` as it is typed; nothing heavy is imported before it runs."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Serve it there, at /metrics.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
def metrics(port: int | None, host: str) -> None:
    """Show numbers for Prometheus: requests, tokens and money of all runs, and the last runs.

    Without --port they are printed once.
    """
    from ondine_dagster.cli.metrics import metrics_command

    metrics_command(port, host)
