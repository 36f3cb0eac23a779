"""What the ledger says of a dataset: budgets that run out, unknown money, a broken ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ondine_dagster.assets.shared.partition_counts import RESPONSES
from ondine_dagster.assets.verdicts.verdicts import Verdict
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.budgets import amount_of, described, standings
from ondine_dagster.ledger.limits import in_force
from ondine_dagster.ledger.outside import outside
from ondine_dagster.spec.checks import CheckName
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    from ondine_dagster.ledger.ledger import Ledger

_USED_UP = 100


def money_verdicts(
    ledger: Ledger, dataset: str, percents: Mapping[str, Sequence[int]], run_scope: str
) -> list[Verdict]:
    """Return the verdicts on a dataset's money; `percents` are those to warn at, by scope.

    A ledger that cannot be read is a verdict and no error.
    """
    try:
        found = [_budget_left(ledger, percents, run_scope), _unknown_money(ledger, dataset)]
    except OndineError as error:
        unreadable = f"The ledger cannot be read: {error}"
        names: tuple[CheckName, ...] = ("budget_left", "unknown_money")
        found = [Verdict(RESPONSES, name, name, False, unreadable) for name in names]
    return [*found, _ledger(ledger)]


def _budget_left(ledger: Ledger, percents: Mapping[str, Sequence[int]], run_scope: str) -> Verdict:
    with ledger.database.read() as connection:
        found = standings(connection, in_force(connection, percents), run_scope)
    tight = []
    for one in found:
        from_percent = min(percents[one.limit.scope], default=_USED_UP)
        if one.percent >= from_percent:
            left = amount_of(one.limit.unit, one.left)
            tight.append(f"{described(one.limit)}: {one.percent} % are used, {left} left")
    used_up = any(one.percent >= _USED_UP for one in found)
    text = "; ".join(tight) or "; ".join(
        f"{described(one.limit)}: {amount_of(one.limit.unit, one.left)} left" for one in found
    )
    if tight:
        text += ". At 100 % nothing more is sent, and the rest of the rows waits"
    return Verdict(
        RESPONSES,
        "budget_left",
        "budget_left",
        not tight,
        f"{text or 'No budget is declared'}.",
        "error" if used_up else "warn",
        numbers={described(one.limit): one.percent for one in found},
    )


def _unknown_money(ledger: Ledger, dataset: str) -> Verdict:
    from ondine_dagster.ledger.totals import unsettled

    with ledger.database.read() as connection:
        found = unsettled(connection, dataset)
    text = "Every request has a known end."
    if found.unknown_requests:
        text = (
            f"{plural(found.unknown_requests, 'request')} ended without an answer and may have "
            f"been billed, {amount_of('usd', found.unknown_money)} at most, which budgets count as "
            "spent. `ondine-dagster ledger unknown` lists them, `ondine-dagster ledger resolve` "
            "settles them."
        )
    return Verdict(
        RESPONSES,
        "unknown_money",
        "unknown_money",
        not found.unknown_requests,
        text,
        numbers={
            "unknown_requests": found.unknown_requests,
            "unknown_usd_at_most": amount_of("usd", found.unknown_money),
        },
    )


def _ledger(ledger: Ledger) -> Verdict:
    text = "The ledger holds the end of every request."
    broken, files = ledger.broken, outside(ledger.path)
    if broken is not None:
        text = f"The ledger cannot be written, and nothing is sent until it can: {broken}"
    elif files:
        text = (
            f"{plural(len(files), 'file')} with ends of requests that are not in the ledger: "
            f"{', '.join(file.name for file in files[:3])} in {files[0].parent}. The next run "
            "takes in what it can; `.damaged` and `.refused` ones are kept for you. Do not "
            "delete them."
        )
    passed = broken is None and not files
    return Verdict(RESPONSES, "ledger", "ledger", passed, text, "error")
