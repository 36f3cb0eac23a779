"""What lines of a log say, for people and for programs."""

from __future__ import annotations

import json
import logging
from decimal import Decimal

import pytest

from ondine_dagster.engine.events import AskedRow, AttemptEnded, RequestSent, RowEnded, RunStarted
from ondine_dagster.observe.log_lines import FIELDS, JsonFormatter, lines_of

_OF = {"run_id": "r", "dataset": "notes", "partition": "p0"}
_REFUSED = AttemptEnded(
    run_id="r",
    dataset="notes",
    partition="p0",
    request="00ff",
    model="demo",
    rows=(AskedRow("a", 2), AskedRow("b", 1)),
    state="released",
    latency_ms=12,
    cost_usd=Decimal(0),
    error_class="capacity",
    code="rate_limited",
    message="slow down, ana@example.com",
)


@pytest.mark.behaviour("A-25")
def test_a_request_for_many_rows_has_a_line_for_each_with_its_own_attempt() -> None:
    lines = list(lines_of(_REFUSED))
    assert [(one.fields["row_key"], one.fields["attempt"]) for one in lines] == [("a", 2), ("b", 1)]
    for line in lines:
        assert line.fields.items() >= _OF.items()
        assert (line.fields["rows_in_request"], line.fields["code"]) == (2, "rate_limited")
        assert line.level == logging.DEBUG
    assert lines[0].text == (
        "notes p0, row a, attempt 2: rate_limited after 12 ms: slow down, ana@example.com"
    )


def test_texts_are_scrubbed_before_they_are_logged() -> None:
    for line in lines_of(_REFUSED, lambda text: text.replace("ana@example.com", "[e-mail]")):
        assert "ana@" not in line.text + json.dumps(line.fields)
        assert "[e-mail]" in line.text


def test_a_row_key_is_scrubbed_and_no_message_leaves_no_colon() -> None:
    of = {**_OF, "attempt": 1, "cost_usd": Decimal(0), "row_key": "ana@example.com"}
    told = RowEnded(**of, outcome="rejected", code="refused")  # type: ignore[arg-type]
    asked = {**_OF, "request": "00", "model": "demo", "rows": (AskedRow("ana@example.com", 1),)}
    ended = AttemptEnded(**asked, state="settled", latency_ms=1, cost_usd=None, code="refused")  # type: ignore[arg-type]
    for event in told, ended, RequestSent(**asked):  # type: ignore[arg-type]
        (line,) = lines_of(event, lambda text: text.replace("ana@example.com", "[e-mail]"))
        assert "ana@" not in line.text + json.dumps(line.fields)
        assert line.fields["row_key"] == "[e-mail]" and not line.text.endswith(": ")
        assert line.fields.get("error") is None


def test_rejected_rows_are_more_important_than_good_ones() -> None:
    common = {"run_id": "r", "dataset": "notes", "partition": "p0", "row_key": "a"}
    good = RowEnded(**common, outcome="ok", attempt=1, cost_usd=Decimal("0.5"))  # type: ignore[arg-type]
    bad = RowEnded(
        **common,  # type: ignore[arg-type]
        outcome="rejected",
        attempt=0,
        cost_usd=Decimal(0),
        error_class="row",
        code="refused",
        message="the model refused",
    )
    (first,), (second,) = lines_of(good), lines_of(bad)
    assert (first.level, first.fields["cost_usd"]) == (logging.DEBUG, 0.5)
    assert second.level == logging.INFO
    assert second.text == "notes p0, row a: rejected: refused: the model refused"
    assert list(lines_of(RunStarted(run_id="r", dataset="notes", partitions=1, rows=2))) == []


def test_a_record_of_anybody_is_one_line_of_json() -> None:
    record = logging.LogRecord("lib", logging.ERROR, "", 0, "two\nlines %s", ("ö",), None)
    setattr(record, FIELDS, {"row_key": "a\n"})
    text = JsonFormatter(dataset="notes").format(record)
    assert "\n" not in text
    found = json.loads(text)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "error",
        "message": "two\nlines ö",
        "logger": "lib",
        "dataset": "notes",
        "row_key": "a\n",
    }
