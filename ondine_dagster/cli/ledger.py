"""`ondine-dagster ledger`: audit the ledger, list and settle requests of unknown outcome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.text import Text

from ondine_dagster.cli.ages import milliseconds
from ondine_dagster.cli.console import output
from ondine_dagster.cli.scope import existing_ledger, refuse_stranger, scope
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.audit import check
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.database import reader_engine
from ondine_dagster.ledger.unknowns import (
    Outcome,
    UnknownAttempt,
    resolve,
    resolve_older,
    unknown_attempts,
)
from ondine_dagster.settings import load_settings
from ondine_dagster.spec.providers import PROVIDERS
from ondine_dagster.wording import plural

_SHOWN_ROWS = 3


def check_command() -> int:
    """Print what does not add up; return the exit code."""
    path = load_settings(Path.cwd()).ledger_path
    with reader_engine(path).connect() as connection:
        problems = check(connection)
    for problem in problems:
        click.echo(problem)
    if problems:
        click.echo(f"{path} does not add up: {plural(len(problems), 'problem')}.", err=True)
        return 1
    click.echo(f"{path} adds up.")
    return 0


def unknown_command(called: str | None) -> None:
    """List requests of unknown outcome, oldest first, one line each."""
    dataset, folder = scope(called)
    path = load_settings(folder).ledger_path
    with existing_ledger(path) as ledger, ledger.database.read() as connection:
        found = unknown_attempts(connection, dataset)
        if not found:
            refuse_stranger(connection, dataset, called)
    if not found:
        click.echo("There are no requests of unknown outcome.")
        return
    console = output()  # keys of rows are anybody's text
    for one in found:
        console.print(Text(_line(one)))
    ask = "\n  ondine-dagster ledger resolve --by-provider   # OpenRouter knows what they cost"
    click.echo(
        f"{len(found)} in all, at most ${sum(one.reserved_usd for one in found):.6f}. They are "
        "asked again within limits.max_unknown. If you know what became of one, or of all:\n"
        f"  ondine-dagster ledger resolve {found[0].id} --free\n"
        f"  ondine-dagster ledger resolve {found[0].id} --charged\n"
        "  ondine-dagster ledger resolve --older-than 2h --free"
        + (ask if any(one.remote_id for one in found) else ""),
        err=True,
    )


def resolve_command(ids: Sequence[str], outcome: Outcome) -> None:
    """Settle these requests of unknown outcome as the person says."""
    with existing_ledger(load_settings(Path.cwd()).ledger_path) as ledger:
        done = resolve(ledger.database, ids, outcome)
    _say_settled(done, outcome)


def resolve_older_command(age: str, called: str | None, outcome: Outcome) -> None:
    """Settle the requests of unknown outcome that were sent longer ago than `age`."""
    before_ms = now_ms() - milliseconds(age, "--older-than")
    dataset, folder = scope(called)
    path = load_settings(folder).ledger_path
    with existing_ledger(path) as ledger:
        with ledger.database.read() as connection:
            refuse_stranger(connection, dataset, called)
        done = resolve_older(ledger.database, before_ms, outcome, dataset)
    if done:
        _say_settled(done, outcome)
    else:
        click.echo(f"No request of unknown outcome is older than {age}.")


def resolve_by_provider_command(called: str | None) -> None:
    """Settle requests of unknown outcome as their provider says, where it can be asked."""
    from ondine_dagster.engine.generations import PROVIDER, settle_as_provider_says

    dataset, folder = scope(called)
    settings = load_settings(folder)
    variables = {PROVIDERS[PROVIDER].key_variable, *_key_variables(called)}
    keys = [key for variable in variables for key in settings.keys_in(variable)]
    with existing_ledger(settings.ledger_path) as ledger:
        with ledger.database.read() as connection:
            refuse_stranger(connection, dataset, called)
        told = settle_as_provider_says(ledger, keys, dataset)
    click.echo(f"{told.text or f'There are no requests of unknown outcome to {PROVIDER}'}.")


def _key_variables(called: str | None) -> list[str | None]:
    """Return the variables of a dataset's API keys, where it is declared here."""
    if called is None:
        return []
    from ondine_dagster.cli.target import find_target

    try:
        llm = find_target(called).declared.dataset.llm
    except OndineError:
        return []
    second = llm.fallback_llm()
    return [one.key_source for one in (llm, second) if one is not None]


def _say_settled(done: Sequence[UnknownAttempt], outcome: Outcome) -> None:
    money = f"${sum(one.reserved_usd for one in done):.6f}"
    became = f"{money} set aside for them is free again"
    if outcome == "charged":
        became = f"{money} counts as paid"
    click.echo(f"{plural(len(done), 'request')} settled as {outcome}: {became}.")


def _line(one: UnknownAttempt) -> str:
    opened = datetime.fromtimestamp(one.opened_ms / 1000, UTC)
    rows = ", ".join(one.row_keys[:_SHOWN_ROWS])
    more = f", ... ({len(one.row_keys)})" if len(one.row_keys) > _SHOWN_ROWS else ""
    return (
        f"{one.id}  {opened:%Y-%m-%d %H:%M:%S} UTC  {one.dataset} {one.partition or '-'}  "
        f"row {rows}{more}  at most ${one.reserved_usd:.6f}  {one.code or 'process died'}"
    )
