"""Files go into a request where it is sent; one that is gone costs nothing and stops nobody."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from hashlib import sha256

import pytest

from ondine_dagster.engine.contents import Contents
from ondine_dagster.engine.rows import Outcome, PartitionFeed, Question
from ondine_dagster.ledger.identity import answer_key, digest, text_digest
from ondine_dagster.llm.attachments import Attachment, inspected
from ondine_dagster.llm.errors import ErrorCode, Failure
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.engine.harness import Harness
from ondine_dagster_tests.small_files import png

FILES = {sha256(data).hexdigest(): data for data in (png(300, 200), png(40, 40, 7))}


def attachments() -> list[Attachment]:
    found = [inspected(data, "image", name, None) for name, data in FILES.items()]
    return [one for one in found if isinstance(one, Attachment)]


def question(row: str, text: str, *attached: Attachment) -> Question:
    messages = messages_json(None, text, attached)
    parts = (digest("m"), digest({}), digest(None))
    return Question(row, answer_key(text_digest(messages), *parts), messages)


def test_the_bytes_stand_where_the_provider_wants_them(harness: Harness) -> None:
    contents = Contents(FILES.get)
    text = f'{contents._place(0)} {{"attachments":['
    messages = question("r", "T", *attachments()).messages
    body = asyncio.run(contents.body(harness.provider, messages, 16))
    assert not isinstance(body, Failure)
    content = json.loads(body.data)["messages"][0]["content"]
    sent = [part["image_url"]["url"].partition(",")[2] for part in content[1:]]
    assert [base64.b64decode(one) for one in sent] == list(FILES.values())
    # weighed by its tokens, not by its bytes
    assert len(body.data) > 300 < body.weight < 4 * (80 + 3) + 600
    # what a row says is never taken for a place
    plain = asyncio.run(contents.body(harness.provider, question("r", text).messages, 16))
    assert not isinstance(plain, Failure)
    assert json.loads(plain.data)["messages"][0]["content"] == text


def test_rows_with_images_are_answered_and_the_reservation_covers_the_bill(
    harness: Harness, simulator: Simulator
) -> None:
    engine = harness.engine()
    engine._load = FILES.get
    rows = [question(f"r{n}", f"[[token=t{n}]]", *attachments()) for n in range(3)]
    outcomes = [row for chunk in engine.run([PartitionFeed("p", [rows])]) for row in chunk.outcomes]
    assert [one.text for one in outcomes] == ["t0", "t1", "t2"]
    attempts = harness.attempts()
    assert sum(one.cost for one in attempts) == simulator.bill.totals.picodollars
    assert all(one.cost <= one.reserved for one in attempts)
    assert all(one.prompt_tokens >= 80 + 3 for one in attempts)  # 300 x 200 and 40 x 40 pixels


@pytest.mark.filterwarnings("error")
def test_a_request_of_many_megabytes_is_sent_whole(harness: Harness, simulator: Simulator) -> None:
    large = png(90, 90) + random.Random(7).randbytes(3_000_000)
    name = sha256(large).hexdigest()
    attached = inspected(large, "image", name, None)
    assert isinstance(attached, Attachment)
    engine = harness.engine()
    engine._load = {name: large}.get
    rows = [question("r", "[[token=t]]", attached, attached)]
    (outcome,) = (
        row for chunk in engine.run([PartitionFeed("p", [rows])]) for row in chunk.outcomes
    )
    assert outcome.text == "t"
    assert simulator.bill.totals.charged == 1


def test_a_file_that_is_gone_sends_nothing_and_stops_nobody(
    harness: Harness, simulator: Simulator
) -> None:
    engine = harness.engine()
    first, second = attachments()
    engine._load = {first.sha256: FILES[str(first.sha256)]}.get  # type: ignore[assignment]
    rows = [question("a", "[[token=a]]", first), question("b", "[[token=b]]", second)]
    a, b = (row for chunk in engine.run([PartitionFeed("p", [rows])]) for row in chunk.outcomes)
    assert (a.outcome, a.text) == (Outcome.ANSWERED, "a")
    assert (b.outcome, b.code) == (Outcome.NOT_ATTEMPTED, ErrorCode.ATTACHMENT_CHANGED)
    assert engine.stopped is None
    assert simulator.bill.totals.requests == 1
    assert len(harness.attempts()) == 1


@pytest.mark.parametrize("concurrency", [4])
def test_no_more_files_are_in_memory_than_requests_in_flight(
    harness: Harness, simulator: Simulator, concurrency: int
) -> None:
    """Loaded once per request, and only when it has a permit."""
    loaded = most = 0

    def load(name: str) -> bytes | None:
        nonlocal loaded, most
        loaded += 1
        most = max(most, loaded - simulator.bill.totals.charged)
        return FILES.get(name)

    engine = harness.engine(concurrency=concurrency)
    engine._load = load
    rows = [question(f"r{n}", f"[[token=t{n}]]", attachments()[0]) for n in range(40)]
    assert sum(len(chunk.outcomes) for chunk in engine.run([PartitionFeed("p", [rows])])) == 40
    assert loaded == 40
    assert most <= concurrency
