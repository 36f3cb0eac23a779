"""Requests that ended, and pushes of them: to a host on a real socket, or into a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from ondine_dagster.ledger import schema
from ondine_dagster.ledger.database import Database
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.tracing import Lasting, leave, lengthen
from ondine_dagster.observe import outbox
from ondine_dagster.observe.destination import Destination
from ondine_dagster.observe.otlp import Answer, Delivered, OtlpHttp
from ondine_dagster.observe.push import Exporter, Pushed, Pusher
from ondine_dagster.observe.spans import Scrub, Span
from ondine_dagster_tests.ledger.builders import key

RUN = "dagster-run-1"
SENT = '[{"content":"what is it?","role":"user"}]'


@dataclass
class InMemory:
    """Takes every span into a list."""

    spans: list[Span] = field(default_factory=list)
    posts: list[int] = field(default_factory=list)

    def post(self, spans: Sequence[Span], seconds: float) -> Answer:
        self.posts.append(len(spans))
        whole = ({**one.common, **one.attributes} for one in spans)
        self.spans += [
            one._replace(attributes=said, common={}) for one, said in zip(spans, whole, strict=True)
        ]
        return Delivered()


def destination(url: str = "http://127.0.0.1:9", **settings: Any) -> Destination:
    return replace(Destination("otlp", f"{url}/v1/traces", {}), **settings)


def push(
    database: Database,
    to: Destination,
    exporter: Exporter | None = None,
    seconds: float = 60.0,
    scrub: Scrub = lambda text: text,
    messages: str | None = SENT,
) -> Pushed:
    """Push what waits within `seconds`, which never pass where nothing fails."""

    def messages_of(_: str, __: str | None, wanted: Mapping[str, Any]) -> Mapping[str, str]:
        return {} if messages is None else dict.fromkeys(wanted, messages)

    left = _Clock(seconds)
    if exporter is not None:
        return Pusher(database, to, messages_of, lambda _: scrub, exporter).push(left)
    with OtlpHttp(to) as over_http:
        return Pusher(database, to, messages_of, lambda _: scrub, over_http).push(left)


class _Clock:
    """Seconds that are left; only waiting for an answer and pauses take some of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self) -> float:
        return self._seconds


def fill(
    database: Database, count: int, first: int = 0, text: str = "yes", **columns: Any
) -> list[bytes]:
    """Write `count` settled requests at once, each with an answer, and return their ids."""
    ids = [new_id() for _ in range(count)]
    attempts, asks, answers, payloads = [], [], [], []
    with database.read() as connection:
        process = connection.execute(sa.select(schema.processes.c.id)).scalar()
    for number, one in enumerate(ids, first):
        attempts.append({**attempt(one), "process": process, **columns})
        asks.append(
            {
                "attempt": one,
                "pos": 0,
                "answer_key": key(number),
                "row_key": f"r{number}",
                "take": 1,
                "open": 0,
                "verdict": "ok",
                "cost_share": 7,
            }
        )
        answer = new_id()
        answers.append(
            {
                "id": answer,
                "answer_key": key(number),
                "take": 1,
                "current": 1,
                "attempt": one,
                "verdict": "ok",
                "ceiling": 100,
                "cost_share": 7,
                "payload_state": "present",
            }
        )
        payloads.append({"answer": answer, "codec": 0, "body": text.encode()})
    with database.write() as connection:
        connection.execute(sa.insert(schema.attempts), attempts)
        connection.execute(sa.insert(schema.asks), asks)
        connection.execute(sa.insert(schema.answers), answers)
        connection.execute(sa.insert(schema.payloads), payloads)
        leave(connection, ids)
        names = ("id", "run_id", "run_scope", "dataset", "partition", "t_open", "t_end")
        lengthen(connection, [Lasting(*(one[name] for name in names)) for one in attempts])
    return ids


def attempt(id_: bytes) -> dict[str, Any]:
    """Return a row of a settled request."""
    return {
        "id": id_,
        "kind": "first",
        "state": "settled",
        "dataset": "reviews",
        "run_scope": "scope",
        "run_id": RUN,
        "day": "2026-01-01",
        "partition": "p0",
        "provider": "openai",
        "identity": "openai/m",
        "base_url": "https://api.example.com/v1",
        "ceiling": 100,
        "request_bytes": 300,
        "reserved": 1000,
        "reserved_tokens": 50,
        "cost": 7,
        "price_version": "declared",
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "model_requested": "m",
        "model_served": "m-2024",
        "t_open": 1_000_000,
        "t_end": 1_000_250,
        "number": 1,
        "traced": 1,
    }


def states(database: Database) -> dict[int, int]:
    """Return how many requests stand in the outbox by state."""
    with database.read() as connection:
        return dict(outbox.status(connection).counts)
