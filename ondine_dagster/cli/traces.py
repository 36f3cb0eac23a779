"""`ondine-dagster traces`: send what waits for a trace host, and say how much does."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click

from ondine_dagster.assets.monitoring.traces import push
from ondine_dagster.cli.ages import milliseconds
from ondine_dagster.cli.console import aligned, output, seconds
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.database import Database, reader_engine
from ondine_dagster.observe import outbox
from ondine_dagster.observe.destination import Destination, destination_of
from ondine_dagster.observe.otlp import Answer
from ondine_dagster.observe.push import Pushed
from ondine_dagster.settings import TRACES, Settings, load_settings
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural

_EVERY_SECONDS = 10.0


def push_command(*, everything: bool, since: str | None) -> int:
    """Send what waits, or once more what ended lately or ever; return the exit code."""
    settings = load_settings(Path.cwd())
    destination = destination_of(settings)
    if destination is None:
        raise OndineError(f"{TRACES} is not set, so traces go nowhere. Set it to langfuse or otlp.")
    path = _ledger(settings)
    with closing(Database(path)) as database:
        if everything or since is not None:
            ago = now_ms() - milliseconds(since, "--since") if since is not None else 0
            queued = outbox.queue_again(database, ago)
            click.echo(f"{plural(queued, 'request')} to send again, as the same spans.", err=True)
        told = _Progress(database)
        done = push(database, Lake(settings.lake_root), destination, told=told)
    _say(done, destination)
    return 1 if done.trouble else 0


def status_command() -> None:
    """Show how many requests wait, were sent, left out or refused, and how the last push went."""
    settings = load_settings(Path.cwd())
    path = _ledger(settings)
    with reader_engine(path).connect() as connection:
        found = outbox.status(connection)
    counts, oldest = found.counts, found.oldest_waiting_ms
    lag = "" if oldest is None else f", the oldest ended {_ago(oldest)} ago"
    rows = [
        ["trace host", _host(settings)],
        ["waiting", f"{counts.get(outbox.WAITING, 0):,}{lag}"],
        ["exported", f"{counts.get(outbox.EXPORTED, 0):,}"],
        ["left out", f"{counts.get(outbox.LEFT_OUT, 0):,} by sampling"],
        ["refused", f"{counts.get(outbox.REFUSED, 0):,} by the host, not sent again"],
        ["last push", _last_push(found)],
    ]
    output().print(aligned(rows))
    if counts.get(outbox.WAITING):
        click.echo("Send them: ondine-dagster traces push", err=True)


class _Progress:
    """Says now and then how many requests wait still: a ledger may hold hours of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._said = time.monotonic()

    def __call__(self, answer: Answer, seconds: float) -> None:
        """Take note that there was an answer to a post."""
        now = time.monotonic()
        if now < self._said + _EVERY_SECONDS:
            return
        self._said = now
        with self._database.read() as connection:
            waiting = outbox.waiting(connection)
        click.echo(f"{plural(waiting, 'request')} to go", err=True)


def _ledger(settings: Settings) -> Path:
    path = settings.ledger_path
    if not path.exists():
        raise OndineError(f"There is no ledger at {path} yet: nothing was run with this data.")
    return path


def _say(done: Pushed, destination: Destination) -> None:
    if done == Pushed():
        click.echo("No request waits to be sent.")
        return
    click.echo(f"{plural(done.exported, 'request')} sent to {destination.url}.")
    if done.left_out:
        click.echo(f"{plural(done.left_out, 'request')} left out by sampling.")
    if done.refused:
        click.echo(f"{plural(done.refused, 'request')} refused by the host.")
    if done.waiting:
        click.echo(f"{plural(done.waiting, 'request')} still waiting.")
    if done.trouble:
        click.echo(f"{done.trouble}.", err=True)


def _host(settings: Settings) -> str:
    try:
        destination = destination_of(settings)
    except OndineError as error:  # what waits is to be seen all the same
        return str(error)
    if destination is None:
        return f"none: {TRACES} is not set"
    unsafe = " (not encrypted)" if destination.plain_text else ""
    return f"{destination.kind} {destination.url}{unsafe}"


def _last_push(found: outbox.Status) -> str:
    if found.last_push_ms is None:
        return "never"
    when = datetime.fromtimestamp(found.last_push_ms / 1000, UTC)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC: {found.trouble or 'all was sent'}"


def _ago(moment_ms: int) -> str:
    return seconds(max(now_ms() - moment_ms, 0) / 1000)
