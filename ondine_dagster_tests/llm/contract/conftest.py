"""One simulator and one engine run per provider: all of its rows at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

import pytest

from ondine_dagster.engine import retry
from ondine_dagster.engine.rows import RowOutcome
from ondine_dagster.ledger import provider_state
from ondine_dagster.llm.attachments import Attachment, Kind, inspected
from ondine_dagster.llm.prices import Prices, Rates
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Provider
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.simulator import Simulator, TokenRules
from ondine_dagster.spec import Llm, Output
from ondine_dagster_tests.engine.harness import Harness, Run, feeds, question
from ondine_dagster_tests.llm.contract.cases import AGAIN, ENDINGS, ODD
from ondine_dagster_tests.llm.contract.providers import PRICES, ROWS, Row
from ondine_dagster_tests.small_files import PDF, png

KEY = "sk-contract-0123456789"
# long enough for the caches of providers that keep it
SYSTEM = "You label the notes of people who write about what they have bought. " * 32
FILES: dict[Kind, bytes] = {"image": png(600, 600), "document": PDF}
FIELDS = {
    "label": {"type": "string", "enum": ["good", "bad", "mixed"]},
    "stars": {"type": "integer", "minimum": 1, "maximum": 5, "required": False},
}


def messages(text: str) -> list[dict[str, str]]:
    """Return what is asked for a row, as the bill knows it."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


@dataclass
class Contract:
    """A provider at work: its row, its simulator, its ledger, and the rows that were asked."""

    row: Row
    simulator: Simulator
    harness: Harness
    outcomes: dict[str, RowOutcome]

    def provider(self, fields: Any = None, **changes: Any) -> Provider:
        """Return the provider, as declared but for `changes`."""
        llm = Llm.model_validate(self.row.declared(self.simulator.base_url) | changes)
        return build_provider(
            llm, wire_schema(Output.model_validate({"fields": fields or {}}).fields)
        )

    def ask(self, *texts: str, fields: Any = None, outage: str | None = None, **limits: Any) -> Run:
        """Run rows of these texts, all requests refused with `outage` where it is given."""
        self.harness.provider = self.provider(fields)
        if outage is not None:
            self.simulator.outage(outage)
        try:
            return self.harness.run([question(text, system=SYSTEM) for text in texts], **limits)
        finally:
            self.simulator.recover()

    def ask_with_file(self, text: str, file: bytes, kind: Kind) -> Run:
        """Run one row with an image or a document."""
        name = sha256(file).hexdigest()
        attached = inspected(file, kind, name, None)
        assert isinstance(attached, Attachment)
        written = messages_json(SYSTEM, text, [attached])
        asked = replace(question(text, system=SYSTEM), messages=written)
        self.harness.provider = self.provider(document_tokens=4000)
        engine = self.harness.engine()
        engine._load = {name: file}.get
        run = Run(engine)
        run.chunks += engine.run(feeds([asked]))
        return run

    def words(self) -> int:
        """Return the tokens of the system message, which every request has."""
        return self.simulator.settings.tokens.count(SYSTEM)


def texts(row: Row) -> dict[str, str]:
    """Return the row of each case, by its name."""
    made = {"good": "[[token=ok]] a good row", "emoji": "[[token=😀]] „ж“ \x00 {}"}
    for fault in (*ENDINGS, *ODD):
        if fault not in row.lacks:
            made[fault] = f"[[fault={fault}]] [[token={fault}]]"
    for fault in AGAIN:
        made[fault] = f"[[fault={fault}]] [[token=later]] {fault.replace(' ', '-')}"
    return made


@pytest.fixture(scope="package", params=ROWS, ids=lambda row: row.provider.rpartition(":")[2])
def contract(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Contract]:
    """Return each provider in turn, after all of its rows were asked in one run."""
    row: Row = request.param
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        _hurry(patch)
        simulator = stack.enter_context(
            Simulator(
                shape=row.shape,
                prices=simulated_prices(),
                tokens=TokenRules(cached_share=0.25 * row.tells_cache, reasoning=3),
                api_key=KEY,
                report_cost=row.reports_cost,
            )
        )
        folder = tmp_path_factory.mktemp("contract")
        harness = stack.enter_context(closing(Harness(folder, simulator.base_url)))
        harness.keys = (KEY,)
        contract = Contract(row, simulator, harness, {})
        asked = texts(row)
        run = contract.ask(*asked.values(), timeout_seconds=20)
        assert run.engine.stopped is None, run.engine.stopped
        contract.outcomes = dict(zip(asked, run.rows, strict=True))
        yield contract


def _hurry(patch: pytest.MonkeyPatch) -> None:
    """Back off for milliseconds, and try a provider that seems to be out at once."""
    patch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    patch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.002)
    patch.setattr(provider_state, "FIRST_COOLDOWN_MS", 1)
    patch.setattr(provider_state, "LONGEST_COOLDOWN_MS", 1)


def simulated_prices() -> Prices:
    """Return the declared prices, as the server bills them."""
    declared = {name.removesuffix("_per_million_usd"): Decimal(usd) for name, usd in PRICES.items()}
    return Prices(Rates.per_million_usd(**declared))
