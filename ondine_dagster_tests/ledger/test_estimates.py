"""What requests will probably use: learnt from answers, priced, recorded and compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from ondine_dagster.ledger import learnt as learning
from ondine_dagster.ledger.estimates import (
    Estimate,
    Estimator,
    answer_tokens,
    compared,
    find,
    record,
    record_asked,
)
from ondine_dagster.ledger.learnt import Learnt, learnt
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.llm.openai_compatible import OpenAICompatible
from ondine_dagster.llm.prices import picodollars
from ondine_dagster.llm.provider import Usage
from ondine_dagster.spec import Llm
from ondine_dagster_tests.ledger.builders import CONTEXT, answered, go, request, unknown

DOLLAR = picodollars(Decimal(1))


def provider(**declared: Any) -> OpenAICompatible:
    """Return the model of the builders: a dollar per million prompt tokens, two for others."""
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 2}
    llm = {"provider": "openai_compatible", "name": "m", "base_url": CONTEXT.base_url}
    return OpenAICompatible(
        Llm.model_validate({**llm, "max_tokens": 100, "prices": prices, **declared}), {}
    )


def answer(ledger: Ledger, name: object, usage: Usage, **context: Any) -> None:
    """Ask in a request of 10 bytes, which is answered with this usage."""
    item = go(ledger, request(name, **context))
    ledger.settle(replace(answered(item), usage=usage))


def known(ledger: Ledger, **declared: Any) -> Learnt | None:
    with ledger.database.read() as connection:
        return learnt(connection, provider(**declared), "reviews")


LEARNT = Learnt(
    answers=10,
    tokens_per_byte=0.5,
    completion_tokens=2.5,
    cached_share=0,
    cache_write_share=0,
    latency_seconds=1,
)


def test_nothing_is_learnt_where_nothing_was_answered(ledger: Ledger) -> None:
    ledger.settle(unknown(go(ledger, request("lost"))))
    go(ledger, request("open"))
    assert known(ledger) is None


def test_tokens_are_learnt_from_the_answers_of_this_model_alone(ledger: Ledger) -> None:
    answer(ledger, "a", Usage(4, 2, cached_tokens=3))
    answer(ledger, "b", Usage(8, 4))
    answer(ledger, "no usage", Usage())
    answer(ledger, "from the provider's memory", Usage(0, 0))
    answer(ledger, "other model", Usage(999, 999), identity="openai_compatible/other")
    found = known(ledger)
    assert found is not None
    assert found.answers == 2
    assert found.tokens_per_byte == 12 / 20
    assert found.completion_tokens == 3
    assert found.cached_share == 3 / 12


def test_the_length_of_answers_is_that_of_the_dataset_once_it_has_some(ledger: Ledger) -> None:
    answer(ledger, "long", Usage(4, 90), dataset="essays")
    before = known(ledger)
    answer(ledger, "short", Usage(4, 2))
    after = known(ledger)
    assert before is not None and (before.completion_tokens, before.own) == (90, False)
    assert after is not None and (after.completion_tokens, after.own) == (2, True)
    assert after.answers == 2


def test_latency_is_that_of_the_same_server(ledger: Ledger) -> None:
    answer(ledger, "elsewhere", Usage(4, 2), base_url="http://127.0.0.1:8/v1")
    before = known(ledger)
    answer(ledger, "here", Usage(4, 2))
    after = known(ledger)
    assert before is not None and before.latency_seconds is None
    assert after is not None and after.latency_seconds is not None


def test_requests_for_several_questions_are_learnt_apart(ledger: Ledger) -> None:
    answer(ledger, "alone", Usage(10, 4))
    found = known(ledger)
    assert found is not None and found.together is None
    pack = go(ledger, request("b", "c"))
    ledger.settle(replace(answered(pack), usage=Usage(30, 20)))
    found = known(ledger)
    assert found is not None and found.together is not None
    assert (found.completion_tokens, found.together.completion_tokens) == (4, 10)
    assert (found.tokens_per_byte, found.together.tokens_per_byte) == (1, 3)
    assert (found.rows_per_request, found.together.rows_per_request) == (1, 2)


@pytest.mark.parametrize(
    ("pairs", "slope"),
    [
        ([(1000, 150), (1100, 175), (1200, 200)], 0.25),
        ([(1000, 150)] * 50, 0.25),  # nothing to learn from: as is assumed
        ([(1000, 400)] * 50, 0.4),  # of other scripts
        ([(1000, 100), (2000, 90)], 0.02),
    ],
)
def test_a_further_byte_is_told_by_requests_of_other_sizes(
    pairs: list[tuple[int, int]], slope: float
) -> None:
    assert learning._per_further_byte(pairs) == pytest.approx(slope)


def test_short_texts_after_long_ones_never_have_less_than_no_tokens() -> None:
    long = replace(LEARNT, fixed_tokens=-500, tokens_per_further_byte=0.8)
    assert long.in_larger(2, 5000) == 3000
    assert long.in_larger(2, 400) == 100


def test_the_last_answers_count(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_LEARNT_FROM", 3)
    answer(ledger, "old", Usage(999, 999))
    for name in range(3):
        answer(ledger, name, Usage(4, 2))
    found = known(ledger)
    assert found is not None and found.completion_tokens == 2


def test_the_search_for_answers_ends(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_SCANNED", 3)
    answer(ledger, "old", Usage(4, 2))
    for name in range(3):
        answer(ledger, name, Usage(4, 2), identity="openai_compatible/other")
    assert known(ledger) is None


def test_without_answers_four_bytes_are_a_token_and_an_answer_a_quarter_of_the_ceiling() -> None:
    estimator = Estimator(provider(), None)
    found = estimator.first(Counter({(400, 500): 3}))
    assert (found.requests, found.prompt_tokens, found.completion_tokens) == (3, 300, 75)
    assert found.expected == 3 * (100 + 2 * 25) * DOLLAR // 10**6
    assert found.most == 3 * (500 + 2 * 100) * DOLLAR // 10**6
    assert found.most_tokens == 3 * (500 + 100)


def test_the_form_of_an_answer_tells_more_than_answers_for_other_datasets() -> None:
    of_others = replace(LEARNT, own=False)
    cases = {(LEARNT, 7.0): 2.5, (of_others, 7.0): 7, (of_others, None): 2.5, (None, 7.0): 7}
    for (known, by_form), tokens in cases.items():
        assert answer_tokens(known, by_form, 100) == tokens
        found = Estimator(provider(), known, by_form=by_form).first(Counter({(400, 500): 2}))
        assert found.completion_tokens == 2 * tokens
    assert answer_tokens(None, 7.0, 5) == answer_tokens(LEARNT, None, 2) + 3 == 5


def test_a_mean_between_two_whole_tokens_is_not_rounded_away() -> None:
    found = Estimator(provider(), LEARNT).first(Counter({(400, 500): 1, (401, 500): 1}))
    # 200 tokens each (200.5 rounds to even), and two and a half for each answer
    assert found.expected == 2 * round((200 + 2 * 2.5) * DOLLAR / 10**6)
    assert found.completion_tokens == 5


def test_what_the_provider_caches_is_cheaper() -> None:
    prices = {"input_per_million_usd": 1, "output_per_million_usd": 2}
    cheap = provider(prices={**prices, "cached_input_per_million_usd": "0.1"})
    half_cached = replace(LEARNT, cached_share=0.5)
    sizes = Counter({(400, 500): 1})
    plain = Estimator(cheap, LEARNT).first(sizes)
    cached = Estimator(cheap, half_cached).first(sizes)
    assert plain.expected - cached.expected == round(100 * 0.9 * DOLLAR / 10**6)
    assert cached.most == plain.most


def test_the_second_request_of_a_cut_answer_counts_in_the_most() -> None:
    sizes = Counter({(400, 500): 1})
    raised = Estimator(provider(raised_max_tokens=300), LEARNT).first(sizes)
    assert raised.most == (2 * 500 + 2 * (100 + 300)) * DOLLAR // 10**6
    assert raised.expected == Estimator(provider(), LEARNT).first(sizes).expected


def test_a_rejected_answer_that_is_asked_for_again_counts_in_what_it_is_at_most() -> None:
    sizes = Counter({(400, 500): 1})
    once, again = (Estimator(provider(), LEARNT, reask=one).first(sizes) for one in (False, True))
    # once more the prompt, the answer and the reason, and another answer of 100 tokens
    assert again.most - once.most == (500 + 100 + 1000 + 2 * 100) * DOLLAR // 10**6
    assert again.most_tokens - once.most_tokens == 500 + 100 + 1000 + 100
    assert (again.expected, again.requests) == (once.expected, once.requests)


def test_a_cut_answer_that_is_asked_again_counts_as_long_as_the_raised_ceiling() -> None:
    found = Estimator(provider(raised_max_tokens=300), LEARNT).cut(Counter({(400, 500): 1}))
    assert found.completion_tokens == 300
    assert found.expected == (200 + 2 * 300) * DOLLAR // 10**6
    assert found.most == (500 + 2 * 300) * DOLLAR // 10**6


def test_the_size_of_messages_is_that_of_the_whole_request() -> None:
    model = provider()
    messages = '[{"content":"größer","role":"user"}]'
    size = Estimator(model, None).size(messages)
    assert size == (len(model.body(messages, 100)), model.prompt_tokens_bound(messages))


def test_the_steps_of_a_run_add_up_and_the_last_run_is_found(ledger: Ledger) -> None:
    step = Estimate(1, 2, 3, 4, 5, 6, 7)
    with ledger.database.write() as connection:
        for asked in (5, 6):
            record(connection, "reviews", "run-1", step)
            record_asked(connection, "reviews", "run-1", asked)
        record(connection, "other", "run-1", step)
    with ledger.database.read() as connection:
        found = find(connection, "reviews")
        assert found is not None
        assert (found.run_scope, found.estimate) == ("run-1", Estimate(2, 4, 6, 8, 10, 12, 14))
        assert found.asked == 11
        assert find(connection, "reviews", "run-2") is None
        assert find(connection, "nobody") is None


def test_what_many_dear_requests_cost_at_most_never_keeps_a_run_from_starting(
    ledger: Ledger,
) -> None:
    """A million answers of up to 131,072 tokens for $75 a million."""
    step = Estimate(requests=1_000_000, expected=DOLLAR, most=9_840_000 * DOLLAR)
    with ledger.database.write() as connection:
        for _ in range(2):
            record(connection, "reviews", "run-1", step)
        found = find(connection, "reviews")
    assert found is not None
    assert found.estimate.most == 2**63 - 1
    assert found.estimate.expected == 2 * DOLLAR


def test_a_comparison_reads_well() -> None:
    estimate = Estimate(requests=10, expected=DOLLAR, most=5 * DOLLAR)
    near = compared(estimate, 10, DOLLAR * 11 // 10)
    assert near == "expected $1.00 (at most $5.00), was $1.10: 10 % more"
    half = compared(estimate, 5, DOLLAR // 2)
    assert half == "expected $1.00 (at most $5.00), was $0.50 in 5 requests instead of 10"
    packs = replace(estimate, rows=100)
    said = compared(packs, 14, DOLLAR, asked=0)
    assert said == "expected $1.00 (at most $5.00), was $1.00 in 14 requests instead of 10"
    assert compared(packs, 14, DOLLAR * 3 // 2, asked=100) == (
        "expected $1.00 (at most $5.00), was $1.50 in 14 requests instead of 10: 50 % more"
    )
    assert compared(packs, 4, DOLLAR // 4, asked=50) == (
        "expected $1.00 (at most $5.00), was $0.25 in 4 requests instead of 10: 50 % less a row"
    )
    free = compared(Estimate(requests=1), 1, 0)
    assert free == "expected $0.00 (at most $0.00), was $0.00"
