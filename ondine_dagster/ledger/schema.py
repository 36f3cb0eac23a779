"""The tables of the ledger. The whole schema exists from the first migration.

Money is INTEGER picodollars (1e-12 USD), times are INTEGER milliseconds since the epoch (UTC),
ids are 16-byte blobs that sort by time, keys 32-byte blobs. The database engine sees no float.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    literal_column,
    text,
)

metadata = MetaData()


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


processes = Table(
    "processes",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # alive | dead
    Column("lease_until", BigInteger),  # PostgreSQL only
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("process", LargeBinary(16), ForeignKey("processes.id"), nullable=False),
    Column("kind", Text, nullable=False),  # first | retry | reask | split | verify
    Column("state", Text, nullable=False),  # open | settled | released | unknown
    Column("dataset", Text, nullable=False),
    Column("run_scope", Text, nullable=False),
    Column("day", Text, nullable=False),  # UTC, YYYY-MM-DD, stored at the reservation
    Column("partition", Text),
    Column("provider", Text, nullable=False),
    Column("identity", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("key_fp", LargeBinary),
    Column("ceiling", Integer, nullable=False),
    Column("request_bytes", Integer, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("reserved_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger),
    Column("upstream_cost", BigInteger),
    Column("is_byok", Boolean),
    Column("cost_source", Text),  # provider | computed | estimated | allocated | unknown
    Column("price_version", Text, nullable=False),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("model_requested", Text, nullable=False),
    Column("model_served", Text),
    Column("provider_served", Text),
    Column("remote_id", Text),
    Column("class", Text),
    Column("code", Text),
    Column("t_open", BigInteger, nullable=False),
    Column("t_end", BigInteger),
    Column("run_id", Text),  # the Dagster run; `run_scope` may be several of them
    # its number among the requests of its run for its question, from 1
    Column("number", Integer, nullable=False, server_default="1"),
    # 0 not to be sent to a trace host, 1 to be sent, 2 only if it fails (and 1 when it has)
    Column("traced", Integer, nullable=False, server_default="0"),
)
# partial indexes: what is open or unknown is always a small part of a large table
Index("attempts_unsettled", attempts.c.process, **_where("state IN ('open', 'unknown')"))

asks = Table(
    "asks",
    metadata,
    Column("attempt", LargeBinary(16), ForeignKey("attempts.id"), nullable=False),
    Column("pos", Integer, nullable=False),
    Column("answer_key", LargeBinary(32), nullable=False),
    Column("row_key", Text, nullable=False),
    Column("take", Integer, nullable=False),
    Column("open", Integer, nullable=False),
    Column("verdict", Text),
    Column("cost_share", BigInteger),
    PrimaryKeyConstraint("attempt", "pos"),
    sqlite_with_rowid=False,
)
# the single-flight of a question across processes: never two open asks of one key
Index("asks_open", asks.c.answer_key, unique=True, **_where("open = 1"))
Index("asks_unknown", asks.c.answer_key, **_where("verdict = 'unknown'"))

answers = Table(
    "answers",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("answer_key", LargeBinary(32), nullable=False),
    Column("take", Integer, nullable=False),
    Column("current", Integer, nullable=False),
    Column("attempt", LargeBinary(16), ForeignKey("attempts.id"), nullable=False),
    Column("verdict", Text, nullable=False),  # ok | truncated | refused | invalid | failed
    Column("code", Text),
    Column("finish_reason", Text),
    Column("flags", Text),
    Column("ceiling", Integer, nullable=False),
    Column("model_served", Text),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("cost_share", BigInteger, nullable=False),
    Column("payload_state", Text, nullable=False),  # present | purged
)
Index("answers_take", answers.c.answer_key, answers.c.take, unique=True)
Index("answers_current", answers.c.answer_key, unique=True, **_where("current = 1"))

payloads = Table(
    "payloads",
    metadata,
    Column("answer", LargeBinary(16), ForeignKey("answers.id"), primary_key=True),
    Column("codec", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
# the text of an answer; one that `purge` has overwritten and not yet removed is none
HAS_TEXT: ColumnElement[bool] = (payloads.c.answer == answers.c.id) & (
    answers.c.payload_state == literal_column("'present'")
)

spend = Table(
    "spend",
    metadata,
    Column("scope", Text, nullable=False),  # dataset:<name> | all
    Column("window", Text, nullable=False),  # run:<id> | day:<date> | month:<yyyy-mm> | total
    Column("unit", Text, nullable=False),  # usd (picodollars) | requests | tokens
    Column("settled", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("warned", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("scope", "window", "unit"),
)

limits = Table(
    "limits",
    metadata,
    Column("scope", Text, nullable=False),
    Column("window_kind", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("limit", BigInteger, nullable=False),
    Column("declared_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("scope", "window_kind", "unit"),
)

# what all processes that ask one model of one server have to agree on; nullable: not known yet
provider_state = Table(
    "provider_state",
    metadata,
    Column("provider", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model_family", Text, nullable=False),
    # rates: the next instants that are free, in MICROseconds since the epoch; what today has had
    Column("next_request_at", BigInteger),
    Column("next_token_at", BigInteger),
    Column("day", Text),
    Column("day_requests", BigInteger),
    Column("day_tokens", BigInteger),
    # shared ceiling: requests in flight over all processes; what drew the last 429, and when
    Column("ceiling", Integer),
    Column("refused_in_flight", Integer),
    Column("refused_at", BigInteger),
    Column("good_answers", Integer),
    Column("paused_until", BigInteger),
    # breaker: `recent` are the last outcomes, oldest first, 0 good and 1 failed
    Column("recent", Text),
    Column("opened_at", BigInteger),
    Column("open_until", BigInteger),
    Column("cooldown_ms", Integer),
    Column("violated_at", BigInteger),
    Column("held_until", BigInteger),  # when it last billed more than was reserved
    PrimaryKeyConstraint("provider", "endpoint", "model_family"),
)

# the engines that are asking right now; those of dead processes do not count
provider_users = Table(
    "provider_users",
    metadata,
    Column("id", LargeBinary(16), primary_key=True),
    Column("process", LargeBinary(16), ForeignKey("processes.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model_family", Text, nullable=False),
    Column("concurrency", Integer, nullable=False),
)

# what a run was expected to cost when it began (picodollars), to compare with what it did cost
estimates = Table(
    "estimates",
    metadata,
    Column("dataset", Text, nullable=False),
    Column("run_scope", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("expected", BigInteger, nullable=False),
    Column("most", BigInteger, nullable=False),
    Column("most_tokens", BigInteger, nullable=False),
    # questions, of which a request may carry several: expected, and asked once the run has ended
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("asked", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("dataset", "run_scope"),
)

properties = Table(
    "properties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# requests that ended and are to be traced, in the order of their ends
outbox = Table(
    "outbox",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("attempt", LargeBinary(16), ForeignKey("attempts.id"), nullable=False),
    # 0 waiting, 1 exported, 2 left out (sampling), 3 refused by the host
    Column("exported", Integer, nullable=False, server_default="0"),
)
Index("outbox_waiting", outbox.c.seq, **_where("exported = 0"))

# the root span of a run's requests for one partition; `exported` 0: changed since it was sent
traces = Table(
    "traces",
    metadata,
    Column("trace_id", LargeBinary(16), primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("run_scope", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("partition", Text),
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),
    Column("exported", Integer, nullable=False, server_default="0"),
)
Index("traces_waiting", traces.c.trace_id, **_where("exported = 0"))

datasets = Table(
    "datasets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("path", Text, nullable=False),
)
