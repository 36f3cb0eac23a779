"""Budgets in Dagster: the resource that shows and declares them, and the warnings of a step."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from ondine_dagster.assets.shared.events import Metadata
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.budgets import (
    Standing,
    claim_warning,
    limits_of,
    limits_on,
    standings,
    table,
    warning,
)
from ondine_dagster.ledger.limits import EVERYTHING, Limit, declare, in_force, scope_of
from ondine_dagster.spec import Dataset
from ondine_dagster.spec.budgets import Budget, read_budgets

if TYPE_CHECKING:
    from ondine_dagster.assets.verdicts.verdicts import Verdict
    from ondine_dagster.ledger.ledger import Ledger

BEATS_PER_LOOK = 5
Log = Callable[[str], object]
Observe = Callable[[Metadata], object]


class BudgetController(dg.ConfigurableResource[Any]):
    """Keeps all datasets and processes within their budgets, and warns before one is used up.

    Here are the budgets over all datasets; those of one dataset stand in its declaration.
    """

    budgets: list[dict[str, Any]] = Field(
        default=[],
        description="What all datasets together may use, taken from ONDINE_BUDGET_USD_PER_DAY and "
        "ONDINE_BUDGETS. Each is `usd`, `requests` or `tokens`, `per` run, day, month or total.",
    )
    warn_at_percent: list[int] = Field(
        default=[75, 90],
        description="At which percentages of these budgets to warn, each once per window.",
    )

    def declare(self, ledger: "Ledger", dataset: Dataset) -> tuple[Limit, ...]:
        """Put the limits of `dataset` and of all datasets in force; return them.

        Processes that run already are bound by them too, where they are lower than their own.
        """
        own = limits_of(dataset)
        shared = limits_on(EVERYTHING, read_budgets(self.budgets, "ondine_budgets.budgets"))
        with ledger.database.write() as connection:
            declare(connection, scope_of(dataset.name), own)
            declare(connection, EVERYTHING, shared)
        return (*own, *shared)

    def watch(
        self, ledger: "Ledger", dataset: Dataset, run_scope: str, log: Log, observe: Observe
    ) -> "BudgetWatch":
        """Return what warns during one step of `dataset`: in its log, and as metadata."""
        percents = {
            scope_of(dataset.name): dataset.limits.warn_at_percent,
            EVERYTHING: tuple(self.warn_at_percent),
        }
        return BudgetWatch(ledger, percents, run_scope, log, observe)


def budget_controller(shared: Sequence[Budget]) -> BudgetController:
    """Return the resource for the budgets that the environment declares."""
    return BudgetController(budgets=[_shown(one) for one in shared])


def _shown(budget: Budget) -> dict[str, Any]:
    # money as text: a float in Dagster's config would not be exact
    return budget.model_dump(mode="json", exclude_none=True)


class BudgetWatch:
    """Looks at the budgets of a step now and then, and warns of those that are nearly used up.

    A look that fails is said once and harms nothing: the budgets hold without it.
    """

    def __init__(
        self,
        ledger: "Ledger",
        percents: Mapping[str, Sequence[int]],
        run_scope: str,
        log: Log,
        observe: Observe,
    ) -> None:
        """`percents` are those to warn at, for each scope."""
        self._ledger = ledger
        self._percents = percents
        self._run_scope = run_scope
        self._log = log
        self._observe = observe
        self._beats = 0
        self._failed = False
        self._standings: list[Standing] = []
        self._warnings: list[str] = []

    def beat(self) -> None:
        """Look at every fifth call."""
        self._beats += 1
        if self._beats % BEATS_PER_LOOK == 0:
            self.look()

    def look(self) -> None:
        """Read where the budgets stand, and warn where no process has done so yet."""
        try:
            with self._ledger.database.read() as connection:
                limits = in_force(connection, self._percents)
                self._standings = standings(connection, limits, self._run_scope)
            warned = [text for one in self._standings if (text := self._warn(one))]
            if warned:
                self._warnings += warned
                self._observe(self.metadata())
        except OndineError as error:
            if not self._failed:
                self._log(f"Nobody is warned of budgets for now: {error}")
            self._failed = True

    def _warn(self, standing: Standing) -> str | None:
        """Log and return the warning that is due, unless another process was faster."""
        percent = standing.due(self._percents[standing.limit.scope])
        if percent is None or not claim_warning(self._ledger.database, standing, percent):
            return None
        text = warning(standing)
        self._log(text)
        return text

    def verdicts(self, dataset: str) -> "list[Verdict]":
        """Return what the checks say of the money now."""
        from ondine_dagster.assets.verdicts.money_verdicts import money_verdicts

        return money_verdicts(self._ledger, dataset, self._percents, self._run_scope)

    def metadata(self) -> Metadata:
        """Return what the last look saw, and the warnings of this step."""
        metadata: Metadata = {}
        if self._standings:
            metadata["budgets"] = dg.MetadataValue.md(table(self._standings))
        if self._warnings:
            metadata["budget_warnings"] = dg.MetadataValue.md("\n\n".join(self._warnings))
        return metadata
