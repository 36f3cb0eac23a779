"""One ledger and one provider, and runs of the engine on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from ondine_dagster.engine.credentials import FetchToken
from ondine_dagster.engine.engine import Engine, EngineLimits
from ondine_dagster.engine.pilot import PilotPlan
from ondine_dagster.engine.preflight import Preflight
from ondine_dagster.engine.rows import Chunk, Outcome, PartitionFeed, Question, RowOutcome
from ondine_dagster.ledger import provider_state, schema
from ondine_dagster.ledger.audit import check
from ondine_dagster.ledger.identity import answer_key, digest, text_digest
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.limits import Limit, scope_of
from ondine_dagster.ledger.provider_state import ProviderState
from ondine_dagster.ledger.records import ProviderKey, RequestContext
from ondine_dagster.llm.openai_compatible import OpenAICompatible
from ondine_dagster.llm.pack_size import PackPlan
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Provider
from ondine_dagster.llm.registry import PackKind, build_packing
from ondine_dagster.spec import Llm

_MODEL = digest("a test's model")
DATASET = "test"
SCOPE = scope_of(DATASET)
Row = Question | RowOutcome


@dataclass
class Run:
    """What came out of the engine."""

    engine: Engine
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def rows(self) -> list[RowOutcome]:
        """All rows, chunk by chunk."""
        return [row for chunk in self.chunks for row in chunk.outcomes]

    @property
    def outcomes(self) -> list[Outcome]:
        return [row.outcome for row in self.rows]

    @property
    def texts(self) -> list[str | None]:
        return [row.text for row in self.rows]

    def partition(self, key: str) -> list[RowOutcome]:
        return [row for chunk in self.chunks if chunk.partition == key for row in chunk.outcomes]


class Harness:
    """Runs on one data folder, against one address."""

    def __init__(self, folder: Path, base_url: str, **llm: Any) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite")
        declared = {
            "provider": "openai_compatible",
            "name": "demo-model",
            "base_url": base_url,
            "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
        }
        self.llm = Llm.model_validate(declared | llm)
        self.provider: Provider = OpenAICompatible(self.llm, None)
        self.max_unknown = 2
        self.limits: tuple[Limit, ...] = ()
        self.keys: tuple[str, ...] = ()
        self.pilot: PilotPlan | None = None
        self.preflight: Preflight | None = None
        self.fetch_token: FetchToken | None = None
        self.secret_headers: dict[str, str] = {}
        self.why_again: Callable[[str], str | None] | None = None
        self.packs: PackPlan | None = None

    def close(self) -> None:
        self.ledger.close()

    def engine(self, **limits: Any) -> Engine:
        provider = self.provider
        context = RequestContext.of(
            provider,
            dataset=DATASET,
            run_scope="run",
            max_unknown=self.max_unknown,
            limits=self.limits,
        )
        settings = {"concurrency": 8, "timeout_seconds": 30} | limits
        keys = [SecretStr(key) for key in self.keys]
        return Engine(
            self.ledger,
            provider,
            context,
            EngineLimits(**settings),
            keys,
            self.pilot,
            self.preflight,
            fetch_token=self.fetch_token,
            secret_headers=self.secret_headers,
            why_again=self.why_again,
            packs=self.packs,
        )

    def pack(self, rows: int | None, kind: PackKind = "json", most: int | None = None) -> None:
        """Ask so many rows in one request from now on; None: as many as turns out to be good."""
        if rows == 1:
            self.packs = None
            return
        packing = build_packing(kind, None)
        provider = OpenAICompatible(self.llm, packing.schema)
        self.packs = PackPlan(packing, provider, rows, 20, most)

    def run(self, *partitions: Iterable[Row], **limits: Any) -> Run:
        """Run partitions p0, p1, ... to the end."""
        run = Run(self.engine(**limits))
        run.chunks += run.engine.run(feeds(*partitions))
        return run

    def attempts(self) -> list[sa.Row[Any]]:
        with self.ledger.database.read() as connection:
            return list(connection.execute(sa.select(schema.attempts)).all())

    def states(self) -> dict[str, int]:
        """Return how many attempts stand in which state."""
        found: dict[str, int] = {}
        for attempt in self.attempts():
            found[attempt.state] = found.get(attempt.state, 0) + 1
        return found

    def shared_state(self) -> ProviderState:
        """Return what all processes know of the provider."""
        provider = self.provider
        key = ProviderKey(provider.name, provider.base_url, provider.model)
        with self.ledger.database.read() as connection:
            return provider_state.read(connection, key)

    def problems(self) -> list[str]:
        """Return what the ledger's own audit finds."""
        with self.ledger.database.read() as connection:
            return check(connection)


def question(text: str, row_key: str | None = None, system: str | None = None) -> Question:
    messages = messages_json(system, text)
    key = answer_key(text_digest(messages), _MODEL, _MODEL, _MODEL)
    return Question(row_key or text, key, messages)


def questions(count: int, text: str = "[[token={n}]] row {n}") -> list[Question]:
    return [question(text.format(n=n), f"row-{n}") for n in range(count)]


def feeds(*partitions: Iterable[Row], batch_rows: int = 100) -> Iterator[PartitionFeed]:
    for number, rows in enumerate(partitions):
        yield PartitionFeed(f"p{number}", _batches(rows, batch_rows))


def _batches(rows: Iterable[Row], size: int) -> Iterator[Sequence[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
