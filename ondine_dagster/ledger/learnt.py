"""What the last requests to a model used, for estimates of the next ones.

Requests for one question and for several are told apart: an answer has more around it in a pack,
and what a request has once weighs less. Where only one of the two is known, the other follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import fmean
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ondine_dagster.ledger import schema
from ondine_dagster.llm.provider import Provider

# The last answers tell most about the next ones. The search for them ends after this many requests,
# so that it takes no longer in a ledger of millions.
_LEARNT_FROM, _SCANNED = 2_000, 20_000
# Until there are answers: what English text comes to.
ASSUMED_BYTES_PER_TOKEN = 4
# sizes that differ by less, as the root of their summed squares, say nothing of a further byte
_TELLING_BYTES = 200
# what a further byte may come to: no text has more than a token in a byte
_LEAST_PER_BYTE, _MOST_PER_BYTE = 0.02, 1.0
_t, _s = schema.attempts.c, schema.asks.c


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a request used on average in the last `answers` of a model.

    `own`: answers for the dataset itself are among them; others tell little of how long its are.
    `tokens_per_byte` and `completion_tokens` (of one question) are those of the dataset's own
    answers where it has any: they depend on the prompt. A larger request has
    `tokens_per_further_byte` beyond the `fixed_tokens` of each. `latency_seconds` is that of a
    request to the same server, with `rows_per_request` questions; None where it gave none of the
    answers. `together` is the same of requests for several questions, None where there were none.
    """

    answers: int
    tokens_per_byte: float
    completion_tokens: float
    cached_share: float
    cache_write_share: float
    latency_seconds: float | None
    rows_per_request: float = 1
    fixed_tokens: float = 0
    tokens_per_further_byte: float | None = None
    together: Learnt | None = None
    own: bool = True

    def in_larger(self, requests: int, request_bytes: float) -> float:
        """Return the prompt tokens of `requests` that are larger than those learnt from."""
        if self.tokens_per_further_byte is None:
            return request_bytes * self.tokens_per_byte
        found = self.fixed_tokens * requests + self.tokens_per_further_byte * request_bytes
        # a line that was learnt of long texts may lie below nothing for short ones
        return max(found, request_bytes * self.tokens_per_byte / 2)


def learnt(connection: Connection, provider: Provider, dataset: str) -> Learnt | None:
    """Return what the last answers of this model tell; None where there are none."""
    recent = sa.select(schema.attempts).order_by(_t.id.desc()).limit(_SCANNED).subquery()
    r = recent.c
    rows = connection.execute(
        sa.select(
            (r.dataset == dataset).label("own"),
            (r.base_url == provider.base_url).label("here"),
            r.request_bytes,
            r.prompt_tokens,
            r.completion_tokens,
            sa.func.coalesce(r.cached_tokens, 0).label("cached"),
            sa.func.coalesce(r.cache_write_tokens, 0).label("written"),
            (r.t_end - r.t_open).label("ms"),
            sa.select(sa.func.count()).where(_s.attempt == r.id).scalar_subquery().label("asked"),
        )
        .where(
            r.state == "settled",
            r.provider == provider.name,
            r.identity == provider.identity,
            r.prompt_tokens > 0,  # 0: answered from the provider's memory
            r.completion_tokens.is_not(None),
        )
        .order_by(r.id.desc())
        .limit(_LEARNT_FROM)
    ).all()
    if not rows:
        return None
    # text and images have little in common: where the dataset has answers, they alone count
    alike = [one for one in rows if one.own] or rows
    alone = [one for one in alike if one.asked == 1]
    packs = [one for one in alike if one.asked > 1]
    found = _averages(alone or packs, rows)
    return replace(found, together=_averages(packs, rows)) if packs else found


def _averages(alike: Sequence[sa.Row[Any]], rows: Sequence[sa.Row[Any]]) -> Learnt:
    """Return what requests of one kind used; how long they took is told by all of that kind."""
    packed = alike[0].asked > 1
    of_server = [one for one in rows if one.here and (one.asked > 1) is packed]
    prompt, size = sum(one.prompt_tokens for one in alike), sum(one.request_bytes for one in alike)
    further = _per_further_byte([(one.request_bytes, one.prompt_tokens) for one in alike])
    return Learnt(
        answers=len(rows),
        tokens_per_byte=prompt / size,
        completion_tokens=sum(one.completion_tokens for one in alike)
        / sum(one.asked for one in alike),
        cached_share=sum(one.cached for one in alike) / prompt,
        cache_write_share=sum(one.written for one in alike) / prompt,
        latency_seconds=fmean(one.ms for one in of_server) / 1000 if of_server else None,
        rows_per_request=fmean(one.asked for one in of_server) if of_server else 1,
        fixed_tokens=(prompt - further * size) / len(alike),
        tokens_per_further_byte=further,
        own=alike[0].own,
    )


def _per_further_byte(pairs: Sequence[tuple[int, int]]) -> float:
    """Return the slope of the line through sizes in bytes and their tokens.

    Where all sizes are about the same it is assumed: what stands around the texts may count little.
    """
    size, tokens = (fmean(column) for column in zip(*pairs, strict=True))
    spread = sum((one - size) ** 2 for one, _ in pairs)
    if sqrt(spread) < _TELLING_BYTES:
        return max(tokens / size, 1 / ASSUMED_BYTES_PER_TOKEN)
    slope = sum((one - size) * (other - tokens) for one, other in pairs) / spread
    return min(max(slope, _LEAST_PER_BYTE), _MOST_PER_BYTE)
