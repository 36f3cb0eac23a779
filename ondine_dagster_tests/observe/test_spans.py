"""What a span says: in the words of Langfuse and in those of OpenTelemetry's conventions."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.observe.outbox import queue_again
from ondine_dagster.observe.scrubbing import scrubbed_messages
from ondine_dagster.observe.spans import Span
from ondine_dagster.privacy.scrubbing import scrubber
from ondine_dagster_tests.ledger.builders import CONTEXT, answered, execute, go, request, unknown
from ondine_dagster_tests.observe.pushing import RUN, InMemory, destination, fill, push

MAIL = "anna@example.com"


def spans(ledger: Ledger, kind: str = "langfuse", **settings: Any) -> list[Span]:
    """Return what is sent of what waits, the root last."""
    memory = InMemory()
    scrub = settings.pop("scrub", str)
    push(ledger.database, destination(kind=kind, **settings), memory, scrub=scrub)
    return memory.spans


def test_a_request_in_the_words_of_langfuse(ledger: Ledger) -> None:
    fill(
        ledger.database,
        1,
        prompt_tokens=100,
        cached_tokens=40,
        completion_tokens=20,
        reasoning_tokens=15,
        cost=1_500_000,
    )
    one, root = spans(ledger, environment="staging")
    own, metadata = "langfuse.observation.", "langfuse.observation.metadata."
    assert one.name == "chat m"
    assert (one.started, one.ended, one.error) == (1_000_000, 1_000_250, None)
    said = one.attributes
    assert said[f"{own}type"] == "generation"
    assert said[f"{own}model.name"] == "m-2024"
    assert json.loads(str(said[f"{own}model.parameters"])) == {"max_tokens": 100}
    assert json.loads(str(said[f"{own}cost_details"])) == {"total": 1.5e-6}
    # parts that add up to what the provider counted
    assert json.loads(str(said[f"{own}usage_details"])) == {
        "input": 60,
        "output": 5,
        "input_cached_tokens": 40,
        "output_reasoning_tokens": 15,
    }
    assert said[f"{metadata}row_key"] == "r0"
    assert said[f"{metadata}attempt"] == 1
    assert said[f"{metadata}dataset"] == "reviews"
    assert said[f"{metadata}model_requested"] == "m"
    assert one.texts[f"{own}input"].startswith("[{")
    assert one.texts[f"{own}output"] == "yes"
    for span in (one, root):
        assert span.attributes["session.id"] == RUN
        assert span.attributes["langfuse.environment"] == "staging"
        assert span.attributes["langfuse.trace.name"] == "reviews/responses p0"
    assert root.name == "reviews/responses p0"
    assert not root.texts


def test_a_request_in_the_words_of_opentelemetry(ledger: Ledger) -> None:
    fill(ledger.database, 1, remote_id="chatcmpl-7", cached_tokens=4)
    one, root = spans(ledger, "otlp")
    assert one.calls
    assert not root.calls
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 100,
        "gen_ai.response.model": "m-2024",
        "gen_ai.response.id": "chatcmpl-7",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "server.address": "api.example.com",
        "ondine.row_key": "r0",
        "ondine.run_id": RUN,
        "ondine.cost_usd": 7e-12,
    }
    assert {name: one.attributes[name] for name in expected} == expected
    assert "error.type" not in one.attributes
    (sent,) = json.loads(one.texts["gen_ai.input.messages"])
    assert sent == {"role": "user", "parts": [{"type": "text", "content": "what is it?"}]}
    (came,) = json.loads(one.texts["gen_ai.output.messages"])
    assert came["parts"] == [{"type": "text", "content": "yes"}]


@pytest.mark.parametrize("kind", ["langfuse", "otlp"])
def test_a_failed_request_says_why(ledger: Ledger, kind: str) -> None:
    fill(
        ledger.database,
        1,
        state="released",
        cost=0,
        prompt_tokens=None,
        completion_tokens=None,
        model_served=None,
        **{"class": "capacity", "code": "rate_limited"},
    )
    execute(ledger.database, "DELETE FROM payloads")
    execute(ledger.database, "DELETE FROM answers")
    execute(ledger.database, "UPDATE asks SET verdict = 'released'")
    one, _ = spans(ledger, kind)
    assert one.error == "capacity: rate_limited"
    if kind == "langfuse":
        assert one.attributes["langfuse.observation.level"] == "ERROR"
        assert one.attributes["langfuse.observation.status_message"] == "capacity: rate_limited"
        assert "langfuse.observation.usage_details" not in one.attributes
        assert one.attributes["langfuse.observation.model.name"] == "m"
    else:
        assert one.attributes["error.type"] == "rate_limited"
        assert one.attributes["ondine.error_class"] == "capacity"


@pytest.mark.parametrize("kind", ["langfuse", "otlp"])
def test_rows_of_a_refused_pack_say_that_it_was_refused(ledger: Ledger, kind: str) -> None:
    fill(ledger.database, 1, **{"class": "row", "code": "refused"})
    execute(ledger.database, "DELETE FROM payloads")
    execute(ledger.database, "DELETE FROM answers")
    execute(
        ledger.database,
        "INSERT INTO asks (attempt, pos, answer_key, row_key, take, open, cost_share) "
        "SELECT attempt, 1, x'01', 'r1', take, 0, 7 FROM asks",
    )
    execute(ledger.database, "UPDATE asks SET verdict = 'settled'")
    rows = [one for one in spans(ledger, kind) if one.name == "row"]
    assert [one.error for one in rows] == ["row: refused"] * 2
    why = "langfuse.observation.status_message" if kind == "langfuse" else "error.type"
    said = "row: refused" if kind == "langfuse" else "refused"
    assert [one.attributes[why] for one in rows] == [said] * 2
    queue_again(ledger.database, 0)
    again = [one for one in spans(ledger, kind) if one.name == "row"]
    assert [one.span_id for one in again] == [one.span_id for one in rows], "sent twice, kept once"
    assert len({one.span_id for one in again}) == 2


@pytest.mark.parametrize(
    ("kind", "row_key"),
    [("langfuse", "langfuse.observation.metadata.row_key"), ("otlp", "ondine.row_key")],
)
def test_the_rows_of_a_pack_are_children_of_its_request(
    ledger: Ledger, kind: str, row_key: str
) -> None:
    pack = request("a", "b", "c", run_id=RUN)
    rows = zip(pack.asks, ("r1", "r2", "r3"), strict=True)
    pack = replace(pack, asks=tuple(replace(ask, row_key=row) for ask, row in rows))
    ledger.settle(answered(go(ledger, pack)))
    one, *children, root = spans(ledger, kind)
    assert one.parent_id == root.span_id
    assert {child.parent_id for child in children} == {one.span_id}
    assert [child.attributes[row_key] for child in children] == ["r1", "r2", "r3"]
    assert row_key not in one.attributes
    assert not one.texts
    assert all(len(child.texts) == 2 for child in children)
    # what the request cost is said once
    said = [name for span in (one, *children) for name in span.attributes if "cost_details" in name]
    assert len(said) == (kind == "langfuse")


def test_requests_for_a_row_are_numbered_within_their_run(ledger: Ledger) -> None:
    first = request("q", run_id=RUN)
    ledger.settle(unknown(go(ledger, first)))
    second = replace(request("q", run_id=RUN), number=2)
    ledger.settle(answered(go(ledger, second)))
    one, two, _ = spans(ledger)
    number = "langfuse.observation.metadata.attempt"
    assert (one.attributes[number], two.attributes[number]) == (1, 2)
    assert (one.error, two.error) == ("unknown", None)


def test_a_request_that_was_never_pushed_is_there_after_a_crash(ledger: Ledger) -> None:
    """It is in the outbox with the very transaction that settles it."""
    ledger.settle(answered(go(ledger, request("a", run_id=RUN))))
    with Reopened(ledger) as after:
        one, root = spans(after)
    assert one.parent_id == root.span_id


class Reopened:
    """The ledger as the next process opens it; the first one said no word of farewell."""

    def __init__(self, ledger: Ledger) -> None:
        self._path = ledger.path

    def __enter__(self) -> Ledger:
        self._ledger = Ledger(self._path)
        return self._ledger

    def __exit__(self, *_: object) -> None:
        self._ledger.close()


def test_ids_are_those_that_a_notebook_can_compute(ledger: Ledger) -> None:
    (attempt,) = fill(ledger.database, 1)
    one, root = spans(ledger)
    seed = f"{RUN}|reviews/responses|p0"
    assert one.trace_id == root.trace_id == sha256(seed.encode()).digest()[:16]
    assert one.span_id == sha256(attempt).digest()[:8]


@pytest.mark.parametrize("kind", ["langfuse", "otlp"])
def test_texts_stay_at_home_where_they_are_not_wanted(ledger: Ledger, kind: str) -> None:
    fill(ledger.database, 1)
    assert not any(span.texts for span in spans(ledger, kind, texts=False))


@pytest.mark.parametrize("kind", ["langfuse", "otlp"])
def test_everything_that_may_hold_a_persons_data_is_scrubbed(ledger: Ledger, kind: str) -> None:
    fill(ledger.database, 1, text=f"write to {MAIL}", partition=f"of {MAIL}")
    execute(ledger.database, "UPDATE asks SET row_key = ?", MAIL)
    pack = request("a", "b", run_id=RUN, row_key=MAIL)
    ledger.settle(answered(go(ledger, pack), text=MAIL))
    memory = InMemory()
    sent = json.dumps([{"role": "user", "content": f'"I am"\n{MAIL}', "attachments": [MAIL]}])
    push(
        ledger.database,
        destination(kind=kind),
        memory,
        scrub=lambda text: text.replace(MAIL, "[mail]"),
        messages=sent,
    )
    assert MAIL not in repr(memory.spans)
    assert repr(memory.spans).count("[mail]") > 10


def test_messages_are_scrubbed_as_people_wrote_them_not_as_json_escapes_them() -> None:
    """A number after an escaped line break is `n49...` in JSON, which no detector would know."""
    seen: list[str] = []

    def scrub(text: str) -> str:
        seen.append(text)
        return text

    for text in ("call 49", "call:\n49", 'say "a":\n49'):
        messages = json.dumps([{"content": text, "role": "user"}])
        assert scrubbed_messages(messages, scrub).text == messages
        assert seen.pop() == text


def test_a_pattern_may_say_where_a_text_begins_and_ends() -> None:
    messages = '[{"content":"ACME-17","role":"user"},{"content":"no ACME-17","role":"user"}]'
    found = scrubbed_messages(messages, scrubber((), {"customer": r"^ACME-\d+$"}))
    assert [one["content"] for one in found.messages] == ["[CUSTOMER]", "no ACME-17"]
    assert json.loads(found.text) == found.messages


def test_the_context_of_the_tests_wants_traces() -> None:
    """The tests here would see nothing otherwise, and one of them counts zero spans."""
    assert CONTEXT.trace_percent == 100
