"""The budgets that bind a dataset as it is declared now, for the commands that show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from ondine_dagster.cli.console import aligned
from ondine_dagster.cli.target import Target
from ondine_dagster.ledger.budgets import (
    COLUMNS,
    Standing,
    described,
    limits_of,
    limits_on,
    standings,
    untouched,
)
from ondine_dagster.ledger.database import reader_engine
from ondine_dagster.ledger.limits import EVERYTHING, Limit
from ondine_dagster.settings import Settings
from ondine_dagster.spec.budgets import shared_budgets


def shared_standings(settings: Settings) -> list[Standing]:
    """Return where the budgets over all datasets stand."""
    return _read(settings, shared_limits(settings), None)


def standings_of(target: Target, run_scope: str | None = None) -> list[Standing]:
    """Return where the budgets stand that bind a dataset: its own, and those over all datasets.

    Without `run_scope`, a budget per run is that of the next run.
    """
    limits = (*limits_of(target.declared.dataset), *shared_limits(target.settings))
    return _read(target.settings, limits, run_scope)


def shared_limits(settings: Settings) -> tuple[Limit, ...]:
    """Return the limits over all datasets that the environment declares."""
    return limits_on(EVERYTHING, shared_budgets(settings))


def _read(settings: Settings, limits: Iterable[Limit], run_scope: str | None) -> list[Standing]:
    if not settings.ledger_path.exists():
        return untouched(limits)
    with reader_engine(settings.ledger_path).connect() as connection:
        return standings(connection, limits, run_scope)


def budgets_table(found: Sequence[Standing]) -> Text:
    """Return one line per budget."""
    return aligned([COLUMNS, *(one.cells() for one in found)], right=range(1, len(COLUMNS)))


def budgets_line(found: Sequence[Standing]) -> str:
    """Return all budgets on one line, with what is left of each."""
    parts = [f"{described(one.limit)} ({one.cells()[-1]} left)" for one in found]
    return ", ".join(parts) or "none: spending is not limited"
