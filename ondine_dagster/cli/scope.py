"""What a command about the ledger covers: one dataset that it knows, or all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.totals import dataset_names

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from ondine_dagster.ledger.ledger import Ledger


def scope(called: str | None) -> tuple[str | None, Path]:
    """Return the name of the dataset, None for all, and the folder whose settings count.

    A name need not be declared any more to have requests in the ledger.
    """
    if called is None or ("/" not in called and not called.endswith((".yaml", ".yml"))):
        return called, Path.cwd()
    from ondine_dagster.cli.target import find_target

    target = find_target(called)
    return target.name, target.declared.project_root


def refuse_stranger(connection: Connection, dataset: str | None, called: str | None) -> None:
    """Raise OndineError for a dataset that neither the ledger nor this project knows."""
    if dataset is None or called is None:
        return
    known = dataset_names(connection)
    if dataset in known:
        return
    from ondine_dagster.cli.target import find_target

    try:
        find_target(called)
    except OndineError:
        close = get_close_matches(dataset, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"It knows: {', '.join(known) or 'none'}."
        raise OndineError(
            f"The ledger knows no dataset {dataset}, and none is declared here. {hint}"
        ) from None


@contextmanager
def existing_ledger(path: Path) -> Iterator[Ledger]:
    """Open the ledger, which also finds the requests of processes that died.

    Raises OndineError where there is none.
    """
    from ondine_dagster.ledger.ledger import close_ledger, open_ledger

    if not path.exists():
        raise OndineError(f"There is no ledger at {path} yet: nothing was run with this data.")
    try:
        yield open_ledger(path)
    finally:
        close_ledger(path)
